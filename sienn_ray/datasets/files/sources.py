"""Sources of bytes of which the beginning can be looked at before they are read."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from sienn_ray.datasets.utf8 import CHUNK_BYTES


class Readable(Protocol):
    """Anything that gives its bytes piece by piece."""

    def read(self, size: int = -1, /) -> bytes:
        """Read on; nothing is read at the end."""
        ...


class HeadedSource:
    """A source with its first bytes at hand.

    Args:
        source: Where the bytes come from; nothing but `read` is called.
        num_bytes: Bytes to look at.
    """

    def __init__(self, source: Readable | BinaryIO, num_bytes: int = CHUNK_BYTES) -> None:
        self._source = source
        pieces, num_read = [], 0
        while num_read < num_bytes and (piece := source.read(num_bytes - num_read)):
            pieces.append(piece)
            num_read += len(piece)
        self.is_whole = num_read < num_bytes
        self._rest = b"".join(pieces)
        self._is_begun = False

    @property
    def head(self) -> bytes:
        """The first bytes; all of them where the source `is_whole`. Not to be asked for once reading has begun."""
        assert not self._is_begun  # nosec B101 # the head is given away piece by piece
        return self._rest

    def read(self, size: int = -1, /) -> bytes:
        """Read on, from the beginning."""
        self._is_begun = True
        if not self._rest:
            return self._source.read(size)
        if size < 0:
            piece, self._rest = self._rest, b""
            return piece + self._source.read(size)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


class LineEnds:
    """A source of text whose lines end with a carriage return alone, as lines that end with a line feed."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        """Read on."""
        return self._source.read(size).replace(b"\r", b"\n")
