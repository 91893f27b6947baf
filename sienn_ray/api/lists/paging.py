"""Query parameters of lists that come in pages."""

from __future__ import annotations

from typing import Any

from fastapi import Query

MAX_LIMIT = 1000
_MAX_CURSOR_CHARS = 500


def limit_query(things: str) -> Any:
    """Return the declaration of `limit: int | None`, with the plural of the things on a page."""
    return Query(ge=1, le=MAX_LIMIT, description=f"{things} on one page; all without it.", examples=[100])


def cursor_query(example: str) -> Any:
    """Return the declaration of `cursor: str | None`, which is opaque to clients."""
    return Query(
        max_length=_MAX_CURSOR_CHARS,
        pattern=r"^[\x21-\x7e]+$",
        description="`next_cursor` of the page before; the first page without it.",
        examples=[example],
    )
