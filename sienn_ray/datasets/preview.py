"""Rows as a person sees them: cut, and fit to be stored and sent as JSON."""

from __future__ import annotations

from itertools import islice
from typing import Any

from sienn_ray.datasets.unread import Unread

MAX_STRING_CHARS = 500
MAX_ITEMS = 100
MAX_DEPTH = 8
# Of one row. Wide and deep rows would otherwise have previews of megabytes, which every list of datasets reads.
MAX_ROW_CHARS = 10_000
_VALUE_CHARS = 8  # what a number, a comma and a pair of brackets count for


def preview_row(values: dict[str, Any]) -> dict[str, Any]:
    """A row as its file has it, with long strings, long lists and deep nesting cut."""
    return _RowPreview().of_object(values, depth=1)


def preview_string(text: str) -> str:
    """Cut a string and replace what JSON responses or databases can't hold: halves of surrogate pairs, and NUL."""
    cut = text if len(text) <= MAX_STRING_CHARS else text[:MAX_STRING_CHARS] + "…"
    return cut.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


class _RowPreview:
    """Builds one row's preview and stops adding to it once it is long enough."""

    def __init__(self) -> None:
        self._chars_left = MAX_ROW_CHARS

    def of_object(self, values: dict[str, Any], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, value in islice(values.items(), MAX_ITEMS):
            if self._chars_left <= 0:
                break
            shown[self._string(name)] = self._value(value, depth + 1)
        return shown

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, Unread):
            return self._string(value.kind)
        self._chars_left -= _VALUE_CHARS
        if not isinstance(value, dict | list):
            # JSON's integers may have thousands of digits; ten bits are three of them.
            self._chars_left -= value.bit_length() * 3 // 10 if isinstance(value, int) else 0
            return value
        if depth >= MAX_DEPTH:
            return "…"
        return self.of_object(value, depth) if isinstance(value, dict) else self._list(value, depth)

    def _list(self, values: list[Any], depth: int) -> list[Any]:
        shown = []
        for value in islice(values, MAX_ITEMS):
            if self._chars_left <= 0:
                break
            shown.append(self._value(value, depth + 1))
        return shown

    def _string(self, text: str) -> str:
        cut = preview_string(text)
        self._chars_left -= len(cut) + _VALUE_CHARS
        return cut
