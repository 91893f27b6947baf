"""ZIP archives that stream, of files in storage or of such as are only made: none is ever held in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, cast

from typing_extensions import Buffer

from sienn_ray.errors import ArtifactError
from sienn_ray.export.sink import Sink, Write
from sienn_ray.storage import CHUNK_BYTES, Manifest, Storage

# What peft and transformers load, as the contract names it.
ARCHIVE_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


# What the run was and how to repeat it; adapters of earlier versions lack them.
OPTIONAL_FILES = ("README.md", "training_run.json")
# Weights don't get smaller.
_STORED = (".safetensors", ".gguf")
_EXECUTABLE = ".sh"


def check_complete(manifest: Manifest, adapter_key: str) -> None:
    """Refuse an adapter that lacks a file, before the first byte of an answer is sent.

    Raises:
        ArtifactError: It lacks one.
    """
    missing = set(ARCHIVE_FILES) - {entry.name for entry in manifest.files}
    if missing:
        raise ArtifactError(f"{adapter_key} lacks {', '.join(sorted(missing))}; fine-tune again")


def adapter_files(manifest: Manifest) -> list[str]:
    """The files of an adapter that go into its archive."""
    there = {entry.name for entry in manifest.files}
    return [*ARCHIVE_FILES, *(name for name in OPTIONAL_FILES if name in there)]


def iter_zip(storage: Storage, key: str, names: Iterable[str]) -> Iterator[bytes]:
    """The ZIP's bytes, piece by piece; the same bytes each time.

    Args:
        storage: Where the files are.
        key: Their folder.
        names: The files, in the order in which the archive has them.
    """
    pipe = _Pipe()
    for _ in write_zip(pipe, {name: copied(storage, f"{key}/{name}") for name in names}):
        yield pipe.take()
    yield pipe.take()


def copied(storage: Storage, key: str) -> Write:
    """A writer that copies a stored file; it is counted in bytes."""

    def write(file: Sink) -> Iterator[int]:
        with storage.reading(key) as source:
            while chunk := source.read(CHUNK_BYTES):
                yield file.write(chunk)

    return write


def write_zip(file: Sink, files: Mapping[str, Write]) -> Iterator[int]:
    """Write an archive of files while they are made; yields what their writers yield.

    Args:
        file: Where to; it can't be gone back in.
        files: What writes each file, by name, in the order in which the archive has them.
    """
    # A file without `seek` is enough for zipfile: sizes and checksums then stand behind each member.
    with zipfile.ZipFile(cast(IO[bytes], file), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, write in files.items():
            with archive.open(_entry(name), "w", force_zip64=True) as target:
                yield from write(_Member(target))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    entry.external_attr = (0o755 if name.endswith(_EXECUTABLE) else 0o644) << 16
    return entry


class _Member:
    """A file within an archive, that knows how long it is."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._size_bytes = 0

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        self._target.write(view)
        self._size_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self._size_bytes

    def flush(self) -> None:
        """Nothing: it is written through."""


class _Pipe(io.RawIOBase):
    """A file that only takes what zipfile writes, until it is fetched."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
