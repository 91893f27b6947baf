"""JSON in the strings of a file whose fields are all strings, as in CSV."""

from __future__ import annotations

import re
from typing import Any

from sienn_ray.datasets.strict_json import json_value
from sienn_ray.errors import InvalidDatasetError

_MESSAGES = re.compile(r"\s*(?:\[\s*)?\{\s*[\"'](?:role|content|from|value)[\"']\s*:")
_PYTHON = re.compile(r"\s*[\[{]\s*[\[{]?\s*'")


def embedded(value: object, what: str) -> Any:
    """Return a list or an object that a string holds as JSON, and other values as they are; `what` names it in errors.

    Raises:
        InvalidDatasetError: The string begins like JSON, and is none.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    if _PYTHON.match(value):
        raise InvalidDatasetError(
            f"{what} holds a list as Python prints it, in single quotes; write it by json.dumps(), or write the whole "
            "table by df.to_json(path, orient='records', lines=True) and upload that as .jsonl"
        )
    try:
        return json_value(value.strip(), "write a list as JSON")
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{what}: {error.message}") from error


def embedded_messages(value: object, what: str) -> Any:
    """Return messages that a string holds as JSON, and other values as they are, whatever text they are.

    Raises:
        InvalidDatasetError: The string begins like a message, and is no JSON.
    """
    return embedded(value, what) if isinstance(value, str) and _MESSAGES.match(value) else value
