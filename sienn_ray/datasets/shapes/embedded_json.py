"""JSON in the strings of a file whose fields are all strings, as in CSV."""

from __future__ import annotations

import re
from typing import Any

from sienn_ray.datasets.strict_json import json_value
from sienn_ray.errors import InvalidDatasetError

# Both begin at a bracket, and no blank is gone back over: neither takes more than linear time.
_MESSAGES = re.compile(r"(?:\[\s*+)?\{\s*+[\"'](?:role|content|from|value)[\"']\s*:")
_PYTHON = re.compile(r"[\[{]\s*+(?:[\[{]\s*+)?'")


def embedded(value: object, what: str) -> Any:
    """Return a list or an object that a string holds as JSON, and other values as they are; `what` names it in errors.

    Raises:
        InvalidDatasetError: The string begins like JSON, and is none.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith(("[", "{")):
        return value
    if _PYTHON.match(text):
        raise InvalidDatasetError(
            f"{what} holds a list as Python prints it, in single quotes; write it by json.dumps(), or write the whole "
            "table by df.to_json(path, orient='records', lines=True) and upload that as .jsonl"
        )
    try:
        return json_value(text, "write a list as JSON")
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{what}: {error.message}") from error


def embedded_messages(value: object, what: str) -> Any:
    """Return messages that a string holds as JSON, and other values as they are, whatever text they are.

    Raises:
        InvalidDatasetError: The string begins like a message, and is no JSON.
    """
    return embedded(value, what) if isinstance(value, str) and _MESSAGES.match(value.lstrip()) else value
