"""JSON values within a row, such as a tool's parameters, checked and brought to text."""

from __future__ import annotations

import json
from typing import Any

from sienn_ray.datasets.values import string
from sienn_ray.datasets.wording import kind_of, shown
from sienn_ray.errors import InvalidDatasetError

# Chat templates go down into them by recursion.
MAX_DEPTH = 50


def json_text(value: object, what: str) -> str:
    """Write a value as JSON; `what` names it in errors.

    Raises:
        InvalidDatasetError: It is nested too deeply, or has numbers or characters that JSON can't hold.
    """
    _check_depth(value, what)
    try:
        return string(json.dumps(value, ensure_ascii=False, allow_nan=False), what)
    except (TypeError, ValueError) as error:
        raise InvalidDatasetError(
            f"{what} has a value that JSON can't say, such as NaN or Infinity; change it or remove the row"
        ) from error


def json_object(value: object, what: str) -> dict[str, Any]:
    """Read an object, or the text of one; `what` names it in errors.

    Raises:
        InvalidDatasetError: It is neither.
    """
    found = parsed(value, what)
    if not isinstance(found, dict):
        raise InvalidDatasetError(f"{what} must be a JSON object, got {kind_of(found)}")
    return found


def parsed(value: object, what: str) -> object:
    """Read a value of which people write the text as well, as OpenAI does with arguments.

    Raises:
        InvalidDatasetError: It is a string that isn't JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(string(value, what), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidDatasetError(f"{what} must be JSON, got {shown(value)}") from error


def _check_depth(value: object, what: str) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise InvalidDatasetError(f"{what} is nested more than {MAX_DEPTH} levels deep; make it flatter")


def _refuse(constant: str) -> object:
    raise ValueError(constant)
