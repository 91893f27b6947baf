"""Faults of fields that take one of several kinds of values, put together to one for each field.

Pydantic tries each alternative and gives the faults of all of them, at places that have the alternatives' names in
between, which no client has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sienn_ray.fault_words import is_of_another_kind, wanted

_BODY = "body"
# Faults whose place ends with the name of a field that need not be there.
_OF_NAMES = frozenset({"missing", "extra_forbidden"})
_NOTHING = object()


def settled(faults: Sequence[Any], body: object) -> list[dict[str, Any]]:
    """The faults at places of the request alone, one where a value is none of what its field takes.

    Where a value is of the kind of one alternative, only that one's faults are left.

    Args:
        faults: As Pydantic gives them.
        body: The body as it was sent.
    """
    if not isinstance(body, dict | list):
        return [dict(fault) for fault in faults]
    found = [dict(fault) for fault in faults if fault["loc"][:1] != (_BODY,)]
    of_body = [fault for fault in faults if fault["loc"][:1] == (_BODY,)]
    return found + _settled([(fault["loc"][1:], fault) for fault in of_body], (_BODY,), body)


def _settled(
    faults: Sequence[tuple[tuple[Any, ...], Any]], place: tuple[Any, ...], value: object
) -> list[dict[str, Any]]:
    """The faults below a place, whose own places go on from it."""
    # In the order in which they come: a fault at its place, or the place of alternatives.
    entries: dict[tuple[Any, ...], list[tuple[str, tuple[Any, ...], Any]]] = {}
    values: dict[tuple[Any, ...], object] = {}
    done: list[dict[str, Any] | tuple[Any, ...]] = []
    for rest, fault in faults:
        at, left, inner = _walked(rest, fault, value)
        where = (*place, *at)
        if not left:
            done.append({**fault, "loc": where})
            continue
        if where not in entries:
            entries[where] = []
            values[where] = inner
            done.append(where)
        entries[where].append((str(left[0]), left[1:], fault))
    found: list[dict[str, Any]] = []
    for each in done:
        found += [each] if isinstance(each, dict) else _chosen(entries[each], each, values[each])
    return found


def _walked(rest: tuple[Any, ...], fault: Any, value: object) -> tuple[tuple[Any, ...], tuple[Any, ...], object]:
    """What of a place is in the request, what is left from an alternative's name on, and the value there."""
    for index, part in enumerate(rest):
        is_last = index == len(rest) - 1
        if _has(value, part):
            value = value[part]  # type: ignore[index] # it has it
        elif not (is_last and fault["type"] in _OF_NAMES) and not isinstance(part, int):
            return rest[:index], rest[index:], value
        else:
            value = _NOTHING
    return rest, (), value


def _has(value: object, part: Any) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _chosen(
    faults: Sequence[tuple[str, tuple[Any, ...], Any]], place: tuple[Any, ...], value: object
) -> list[dict[str, Any]]:
    """The faults of the alternative that was meant, or one that names all."""
    by_alternative: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}
    for name, rest, fault in faults:
        by_alternative.setdefault(name, []).append((rest, fault))
    meant = [each for each in by_alternative.values() if not _is_of_another_kind(each)]
    if meant:
        return _settled(min(meant, key=len), place, value)
    first = faults[0][2]
    kinds = dict.fromkeys(
        kind
        for each in by_alternative.values()
        for rest, fault in each
        if not rest and (kind := wanted(fault)) is not None
    )
    return [{**first, "type": "kinds", "loc": place, "msg": f"has to be {' or '.join(kinds)}"}]


def _is_of_another_kind(faults: Sequence[tuple[tuple[Any, ...], Any]]) -> bool:
    return any(not rest and is_of_another_kind(fault) for rest, fault in faults)
