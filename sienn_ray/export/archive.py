"""Files of storage as one ZIP that streams: no archive is ever held in memory or on disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator

from sienn_ray.errors import ArtifactError
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
    sink = _Pipe()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith(_EXECUTABLE) else 0o644) << 16
            with (
                storage.reading(f"{key}/{name}") as source,
                archive.open(entry, "w", force_zip64=True) as target,
            ):
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()


class _Pipe(io.RawIOBase):
    """A file that only takes what zipfile writes, until it is fetched."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
