"""Cursors of pages: where the next page begins, in a form that says nothing."""

from __future__ import annotations

import base64
import binascii

from sienn_ray.errors import InvalidInputError

_MAX_SHOWN_CHARS = 64
_MAX_SEQ_DIGITS = 18


def cursor_of(seq: int) -> str:
    """Return the cursor behind a row."""
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
