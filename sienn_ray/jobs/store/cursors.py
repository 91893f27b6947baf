"""Cursors: where the next page of a list begins, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sienn_ray.errors import InvalidInputError

_MAX_SHOWN_CHARS = 64
_MAX_SEQ_DIGITS = 18


def cursor_of(seq: int) -> str:
    """Return the cursor of a page that begins behind a row."""
    return base64.urlsafe_b64encode(str(seq).encode()).decode()


def seq_of(cursor: str) -> int:
    """Return the `seq` behind a cursor.

    Raises:
        InvalidInputError: No page ended with this.
    """
    try:
        digits = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        digits = b""
    if not digits.isdigit() or len(digits) > _MAX_SEQ_DIGITS:
        shown = repr(cursor[:_MAX_SHOWN_CHARS])
        raise InvalidInputError(
            f"cursor {shown} isn't one; take `next_cursor` of the page before as it is, or leave it out for the first "
            "page"
        )
    return int(digits)


def read_page(
    connection: sa.Connection,
    query: sa.Select[Any],
    seq: sa.ColumnElement[int],
    *,
    limit: int | None,
    cursor: str | None,
) -> tuple[Sequence[sa.RowMapping], int, str | None]:
    """Read one page of a list, the newest first.

    Args:
        connection: A transaction.
        query: All rows, with `seq` among their columns.
        seq: The order of arrival.
        limit: Rows at the most; None gives all that follow.
        cursor: Where the page begins; None is the first one.

    Returns:
        The rows, the number of rows on all pages, and the next page's cursor.

    Raises:
        InvalidInputError: The cursor isn't one.
    """
    count = connection.scalar(query.with_only_columns(sa.func.count(), maintain_column_froms=True)) or 0
    following = query if cursor is None else query.where(seq < seq_of(cursor))
    following = following.order_by(seq.desc())
    if limit is not None:
        following = following.limit(limit + 1)
    found = connection.execute(following).mappings().all()
    rows = found[:limit]
    return rows, count, cursor_of(rows[-1]["seq"]) if rows and len(found) > len(rows) else None
