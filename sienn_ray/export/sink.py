"""What the files of an export are written to."""

from __future__ import annotations

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
