"""An adapter as a ZIP that streams: no archive is ever held in memory or on disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

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


def check_complete(manifest: Manifest, adapter_key: str) -> None:
    """Refuse an adapter that lacks a file, before the first byte of an answer is sent.

    Raises:
        ArtifactError: It lacks one.
    """
    missing = set(ARCHIVE_FILES) - {entry.name for entry in manifest.files}
    if missing:
        raise ArtifactError(f"{adapter_key} lacks {', '.join(sorted(missing))}; fine-tune again")


def iter_zip(storage: Storage, adapter_key: str) -> Iterator[bytes]:
    """The ZIP's bytes, piece by piece. Weights are stored, not deflated: they don't get smaller."""
    sink = _Pipe()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in _names(storage, adapter_key):
            compression = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
            entry = zipfile.ZipInfo(name)
            entry.compress_type = compression
            entry.external_attr = 0o644 << 16
            with (
                storage.reading(f"{adapter_key}/{name}") as source,
                archive.open(entry, "w", force_zip64=True) as target,
            ):
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()


def _names(storage: Storage, adapter_key: str) -> list[str]:
    there = {entry.name for entry in storage.manifest(adapter_key).files}
    return [*ARCHIVE_FILES, *(name for name in OPTIONAL_FILES if name in there)]


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
