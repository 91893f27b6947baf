"""Compares real values with documented ones, place by place and type by type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Ids of the reference: cut off with dots, or with letters that no UUID has.
_DOCUMENTED_ID = re.compile(r"[0-9a-z]{8}-([0-9a-z-]{27}|\.\.\.)")


def faults(documented: Any, actual: Any) -> list[str]:
    """Where a real value isn't what is documented; further fields are no fault."""
    return list(_faults([documented], actual, "response"))


def _faults(documented: list[Any], actual: Any, at: str) -> Iterator[str]:
    """`documented` holds every value that the reference shows at this place, in one list item or another."""
    kinds = {_documented_kind(value) for value in documented}
    if _kind(actual) not in kinds:
        yield f"{at} is {_kind(actual)} ({actual!r}), documented is {' or '.join(sorted(kinds))}"
    elif isinstance(actual, dict):
        yield from _object_faults([value for value in documented if isinstance(value, dict)], actual, at)
    elif isinstance(actual, list):
        lists = [value for value in documented if isinstance(value, list)]
        items = [item for value in lists for item in value]
        if all(lists) and not actual:
            yield f"{at} is empty, so that there is nothing to compare"
        for number, item in enumerate(actual if items else []):
            yield from _faults(items, item, f"{at}[{number}]")


def _object_faults(documented: list[dict[str, Any]], actual: dict[str, Any], at: str) -> Iterator[str]:
    always = set.intersection(*(set(value) for value in documented))
    for name in dict.fromkeys(name for value in documented for name in value):
        if name in actual:
            yield from _faults([value[name] for value in documented if name in value], actual[name], f"{at}.{name}")
        elif name in always:
            yield f"{at}.{name} is missing"


def _documented_kind(value: Any) -> str:
    return "a UUID" if isinstance(value, str) and _DOCUMENTED_ID.fullmatch(value) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        if _TIMESTAMP.fullmatch(value):
            return "a timestamp"
        return "a UUID" if _UUID.fullmatch(value) else "a string"
    kinds = {bool: "a boolean", int: "an integer", float: "a float", dict: "an object", list: "a list"}
    return kinds.get(type(value), "null")
