"""Messages of validation errors: field, fault, limit and value of each fault, in bounded length."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Collection, Sequence
from typing import Any

from sienn_ray.fault_words import words_of
from sienn_ray.jobs.ids import shown
from sienn_ray.jobs.naming import WORDS_OF_PATTERNS

_MAX_SHOWN_FAULTS = 10
_MAX_SHOWN_CHARS = 100
# Errors are written into logs by those who get them: no keys and no tokens in them, where somebody sends them astray.
_SECRET_NAMES = frozenset(
    {"access_token", "api_key", "client_secret", "code", "id_token", "key", "password", "refresh_token", "token"}
)
_SECRET = re.compile(r"siennr?_[A-Za-z0-9]{12}|eyJ[A-Za-z0-9_-]{8}")
# Parts of the place of a field that isn't within another one: what it is a field of, and its name.
_TOP = 2


def sentences(faults: Sequence[Any], known: Collection[str] = ()) -> str:
    """The faults that Pydantic found; only the first of them if there are many.

    Args:
        faults: As Pydantic gives them.
        known: Names that a request may have, to say what a wrong one may have meant.
    """
    words = [_sentence(fault, known) for fault in faults[:_MAX_SHOWN_FAULTS]]
    num_more = len(faults) - _MAX_SHOWN_FAULTS
    return "; ".join([*words, f"and {num_more} more"] if num_more > 0 else words)


def field_of(faults: Sequence[Any], known: Collection[str] = ()) -> str | None:
    """The field of the body that the first fault is in; None for a body that can't be read.

    Args:
        faults: As Pydantic gives them.
        known: Names that a request may have: of fields that don't go together, the words begin with one.
    """
    where = faults[0]["loc"][1:2]
    if not where and (first := words_of(faults[0]).split(maxsplit=1)):
        name = first[0].rstrip(":")
        return name if name in known else None
    return shown(str(where[0])) if where and faults[0]["type"] != "json_invalid" else None


def unknown_name(name: str, known: Collection[str]) -> str:
    """Say that there is no such name, and which one may have been meant."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return "isn't known here" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _sentence(fault: dict[str, Any], known: Collection[str]) -> str:
    where = shown(".".join(str(part) for part in fault["loc"] if part != "body")) or "body"
    if fault["type"] == "missing":
        return f"{where}: {fault['msg']}"
    if fault["type"] == "json_invalid":
        return f"body: not JSON: {fault['ctx']['error']} at character {where}"
    words = words_of(fault)
    if fault["type"] == "string_pattern_mismatch":
        words = WORDS_OF_PATTERNS.get(fault["ctx"]["pattern"], "has characters that aren't taken here")
    if fault["type"] == "extra_forbidden":
        words = unknown_name(str(fault["loc"][-1]), known if len(fault["loc"]) == _TOP else ())
    if where == "body" and isinstance(fault.get("input"), dict):  # fields that don't go together, which the words name
        return words
    return f"{where}: {words} (got {_value(fault['loc'], fault.get('input'))})"


def _value(place: Sequence[Any], value: object) -> str:
    if place and str(place[-1]).lower() in _SECRET_NAMES:
        return "a value that isn't shown"
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    words = _Shown().repr(value)
    if _SECRET.search(words):
        return "a value that isn't shown"
    return words if len(words) <= _MAX_SHOWN_CHARS else words[:_MAX_SHOWN_CHARS] + "…"


class _Shown(reprlib.Repr):
    """`repr` that neither follows a value down to its last level nor writes a long one out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = 2 * _MAX_SHOWN_CHARS

    # As JSON has them.
    def repr_NoneType(self, _: None, __: int) -> str:  # noqa: N802 # the base class looks for the type's name
        """Write null."""
        return "null"

    def repr_bool(self, value: bool, _: int) -> str:
        """Write true or false."""
        return "true" if value else "false"
