"""Content of gzip and Zstandard files, unpacked piece by piece and in bounded size."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.files.sources import HeadedSource, Readable
from sienn_ray.errors import InvalidDatasetError

# Text packs to a tenth or so. What grows a thousandfold is made to fill memory, disk or time.
MAX_RATIO = 200
# Where the ratio isn't looked at: a small file of equal rows is harmless.
FREE_BYTES = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 16 * 1024 * 1024 * 1024

_MAGIC = {b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd"}
_NAMES = {"gzip": "gzip", "zstd": "Zstandard"}


def unpacked(source: HeadedSource, notes: FileNotes, *, says_so: bool) -> HeadedSource:
    """Unpack a file if it is packed, whatever its name is.

    Args:
        source: The file.
        notes: Told where the name didn't say that it is packed.
        says_so: Whether the name did.
    """
    for magic, codec in _MAGIC.items():
        if source.head.startswith(magic):
            if not says_so:
                notes.guess("compression", _NAMES[codec])
            return HeadedSource(_Unpacked(source, codec))
    return source


class _Counted:
    """What the library reads from: the packed bytes, counted."""

    closed = False

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.num_bytes += len(data)
        return data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        pass


class _Unpacked:
    """The unpacked bytes, as long as they are not too many for the packed ones."""

    def __init__(self, source: Readable, codec: str) -> None:
        self._packed = _Counted(source)
        self._name = _NAMES[codec]
        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(self._packed, mode="r"), codec)
        self._num_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        assert size > 0  # nosec B101 # reads are bounded
        try:
            data = bytes(self._stream.read(size))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InvalidDatasetError(
                f"the {self._name} file is damaged or cut short behind {self._num_bytes:,} unpacked bytes; pack it "
                "again, or upload it unpacked"
            ) from error
        self._num_bytes += len(data)
        most = max(FREE_BYTES, MAX_RATIO * self._packed.num_bytes)
        if self._num_bytes > min(most, MAX_UNPACKED_BYTES):
            raise InvalidDatasetError(
                f"the {self._name} file has more than {min(most, MAX_UNPACKED_BYTES):,} bytes unpacked, from "
                f"{self._packed.num_bytes:,} packed ones (at most {MAX_RATIO} times as many, and "
                f"{MAX_UNPACKED_BYTES:,}, are taken); upload it unpacked, or in parts"
            )
        return data
