"""Messages of validation errors: field, fault, limit and value of each fault, in bounded length."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

from sienn_ray.jobs.ids import shown

_MAX_SHOWN_FAULTS = 10
_MAX_SHOWN_CHARS = 100


def sentences(faults: Sequence[Any]) -> str:
    """The faults that Pydantic found; only the first of them if there are many."""
    words = [_sentence(fault) for fault in faults[:_MAX_SHOWN_FAULTS]]
    num_more = len(faults) - _MAX_SHOWN_FAULTS
    return "; ".join([*words, f"and {num_more} more"] if num_more > 0 else words)


def field_of(faults: Sequence[Any]) -> str | None:
    """The field of the body that the first fault is in; None for a body that can't be read."""
    where = faults[0]["loc"][1:2]
    return shown(str(where[0])) if where and faults[0]["type"] != "json_invalid" else None


def _sentence(fault: dict[str, Any]) -> str:
    where = shown(".".join(str(part) for part in fault["loc"] if part != "body")) or "body"
    if fault["type"] == "missing":
        return f"{where}: {fault['msg']}"
    if fault["type"] == "json_invalid":
        return f"body: not JSON: {fault['ctx']['error']} at character {where}"
    return f"{where}: {fault['msg']} (got {_value(fault.get('input'))})"


def _value(value: object) -> str:
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    words = _Shown().repr(value)
    return words if len(words) <= _MAX_SHOWN_CHARS else words[:_MAX_SHOWN_CHARS] + "…"


class _Shown(reprlib.Repr):
    """`repr` that neither follows a value down to its last level nor writes a long one out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = 2 * _MAX_SHOWN_CHARS
