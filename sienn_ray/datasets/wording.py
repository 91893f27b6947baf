"""Wording of error messages about a user's file."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from sienn_ray.datasets.unread import Unread

MAX_SHOWN_NAMES = 20
MAX_SHOWN_CHARS = 40


def shown(text: str) -> str:
    """A user's text for an error message: quoted, escaped where it can't be printed, and not too long."""
    return repr(text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…")


def kind_of(value: object) -> str:
    """A value's type in the words of JSON, which is what users wrote."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, Unread):
        return value.kind
    kinds = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)


def listed(names: Collection[str]) -> str:
    """Names of columns or keys; only the first of them if there are many."""
    first = ", ".join(shown(name) for name in islice(names, MAX_SHOWN_NAMES)) or "none"
    num_more = len(names) - MAX_SHOWN_NAMES
    return f"{first} and {num_more:,} more" if num_more > 0 else first
