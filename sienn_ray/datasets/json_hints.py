"""Usual mistakes in JSON, and the way out of each."""

from __future__ import annotations

import json
import re

# What stands at the place where the parser gives up, and what to do about it.
_AT_FAULT = (
    (r"'", "strings have double quotes in JSON; from Python, write rows by json.dumps(row)"),
    (r"(None|True|False)\b", r"JSON writes null, true and false; from Python, write rows by json.dumps(row)"),
    (r"(//|#|/\*)", "JSON has no comments; remove them"),
    (r"[\u201c\u201d\u201e\u2018\u2019]", "strings have straight double quotes in JSON, and no typographic ones"),
)


def hint_of(text: str, error: json.JSONDecodeError) -> str | None:
    """Say how to mend a text that isn't JSON, where the mistake is a usual one.

    Args:
        text: The text.
        error: The parser's error.

    Example:
        >>> text = '{"text": None}'
        >>> try:
        ...     json.loads(text)
        ... except json.JSONDecodeError as error:
        ...     hint_of(text, error)
        'JSON writes null, true and false; from Python, write rows by json.dumps(row)'
    """
    if error.msg.startswith("Invalid control character"):
        return "a line break within a string is written \\n in JSON, and a tab \\t"
    if error.msg.startswith("Invalid \\escape"):
        return "a backslash is written \\\\ in JSON"
    if error.msg.startswith("Unterminated string"):
        return "the line ends within a string; a line break within it is written \\n, and an object ends on its line"
    at_fault = text[error.pos :].lstrip()
    for pattern, hint in _AT_FAULT:
        if re.match(pattern, at_fault):
            return hint
    if re.match(r"[}\]]", at_fault) and text[: error.pos].rstrip().endswith(","):
        return "JSON has no comma behind the last value; remove it"
    behind_string = text[: error.pos].rstrip().endswith('"')
    if error.msg.startswith("Expecting ',' delimiter") and behind_string:
        return 'a quote within a string is written \\" in JSON'
    return None
