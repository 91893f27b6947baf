"""JSON as datasets have it: keys come once, numbers are finite, and nothing is nested too deeply."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from sienn_ray.datasets.json_hints import hint_of
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

MAX_JSON_DEPTH = 32
_FLAT = frozenset({str, int, float, bool, type(None)})


def json_value(text: str, advice: str) -> Any:
    """Parse a JSON value.

    Args:
        text: The JSON, without a line end that an error could be placed behind.
        advice: What the text must be, for the error where it is no JSON.

    Raises:
        InvalidDatasetError: It is no JSON, is nested too deeply, repeats a key, or has a number that is none.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        words = hint_of(text, error) or advice
        raise InvalidDatasetError(f"invalid JSON at column {error.colno}: {error.msg}; {words}") from error
    except RecursionError as error:
        raise InvalidDatasetError(f"nested deeper than {MAX_JSON_DEPTH} levels") from error
    except InvalidDatasetError:
        raise
    except ValueError as error:
        raise InvalidDatasetError("a number has too many digits; write it as a string") from error
    if isinstance(value, dict | list) and not _is_shallow(value):
        raise InvalidDatasetError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def _is_shallow(value: Any) -> bool:
    """Whether lists and objects nest no deeper than `MAX_JSON_DEPTH`; walks level by level, never recursing."""
    if type(value) is dict and _FLAT.issuperset(map(type, value.values())):
        return True
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise InvalidDatasetError(f"the key {shown(repeated)} comes more than once in an object")
    return values


def _refused_constant(name: str) -> NoReturn:
    raise InvalidDatasetError(f"{name} is not JSON; write a string, or null where a value may be missing")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidDatasetError(f"the number {shown(text)} is out of range; write it as a string")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refused_constant, parse_float=_finite_float)
