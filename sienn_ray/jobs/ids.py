"""The form of ids of datasets and jobs; anything else is not there, and reaches no database."""

from __future__ import annotations

import re

from sienn_ray.errors import NotFoundError

_FORM = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_SHOWN_CHARS = 80


def is_id(text: str) -> bool:
    """Return whether this can be an id at all."""
    return _FORM.fullmatch(text) is not None


def check_id(kind: str, text: str) -> None:
    """Let through what can be an id.

    Args:
        kind: What the id is of, for the message: `Job` or `Dataset`.
        text: The id as somebody gave it.

    Raises:
        NotFoundError: It can't be one.
    """
    if not is_id(text):
        raise not_found(kind, text)


def not_found(kind: str, text: str) -> NotFoundError:
    """The error for an id that isn't there."""
    return NotFoundError(f"{kind} {shown(text)} not found")


def shown(text: str) -> str:
    """A user's text for an error message: escaped where it can't be printed, and cut if it is long."""
    cut = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
    return cut if cut.isprintable() else repr(cut)[1:-1]
