"""Sinks for the files of an export, and the functions that write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from typing_extensions import Buffer


class Sink(Protocol):
    """A file that is written from its beginning to its end."""

    def write(self, data: Buffer, /) -> int:
        """Write bytes."""
        ...

    def tell(self) -> int:
        """Bytes so far."""
        ...

    def flush(self) -> None:
        """Hand on what is held back."""
        ...


# Writes a file, and tells of its progress: in bytes, or whatever else the work is counted in.
Write = Callable[[Sink], Iterator[int]]
