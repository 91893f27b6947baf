"""SQLite without its waits for the disk: no test has to outlive a crash of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import Pool


def _spare_the_disk(connection: Any, *_: Any) -> None:
    if type(connection).__module__.startswith("sqlite3"):
        connection.execute("PRAGMA synchronous=OFF").close()


def install() -> None:
    """Have every database of this process take part."""
    sa.event.listen(Pool, "checkout", _spare_the_disk)


@contextmanager
def uninstalled() -> Iterator[None]:
    """Databases as they are outside of tests, in the block."""
    sa.event.remove(Pool, "checkout", _spare_the_disk)
    try:
        yield
    finally:
        install()
