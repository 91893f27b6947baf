"""JSON in strings: where a file's fields are all strings, as in CSV, lists are written so."""

from __future__ import annotations

import json
import re
from typing import Any

from sienn_ray.datasets.messages import MESSAGE_KEYS
from sienn_ray.datasets.shapes.roles import CALLS, ROLE_OF
from sienn_ray.datasets.strict_json import json_value
from sienn_ray.errors import InvalidDatasetError

# All begin at a bracket, and go back over no blanks: they take linear time.
_OBJECT = re.compile(r"(?:\[\s*+)?\{\s*+\"")
# The begin of a list of messages, also as Python prints it.
_MESSAGES = re.compile(r"\[\s*\{\s*(['\"])(?:role|from)\1\s*:\s*\1(\w+)\1\s*,\s*\1(?:content|value)\1\s*:")
_PYTHON = re.compile(r"[\[{]\s*+(?:[\[{]\s*+)?'")
_SAID = frozenset({"content", "tool_calls", "function_call"})
_MAY_HAVE = MESSAGE_KEYS | {"train", "loss"}
_SHAREGPT = frozenset({"from", "value"})
_MAY_BESIDE = frozenset({"weight", "train", "loss"})


def embedded(value: object, what: str) -> Any:
    """Return a list or an object that a string holds as JSON, and other values as they are; `what` names it in errors.

    Raises:
        InvalidDatasetError: The string begins like JSON, and is none.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    if _PYTHON.match(value.lstrip()):
        raise _printed(what)
    try:
        return json_value(value.strip(), "write a list as JSON")
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{what}: {error.message}") from error


def embedded_texts(value: object, what: str, *, may_be_squad: bool = False) -> Any:
    """Return a list of texts that a string holds as JSON, and other values as they are, whatever text they are.

    Args:
        value: The value.
        what: Its name in errors.
        may_be_squad: Whether it may also be SQuAD's object of answers, `{"text": [...], "answer_start": [...]}`.

    Raises:
        InvalidDatasetError: The string is a list as Python prints it.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    if _PYTHON.match(value.lstrip()) and value.rstrip().endswith(("]", "}")):
        raise _printed(what)
    try:
        found = json_value(value.strip(), "")
    except InvalidDatasetError:
        return value
    is_squad = may_be_squad and isinstance(found, dict) and (_is_texts(found.get("text")) or "answer_start" in found)
    return found if is_squad or _is_texts(found) else value


def embedded_messages(value: str, what: str) -> list[Any] | None:
    """Return the messages that a string holds as JSON; None where it is another text.

    They are messages only if all have a role that is known, something said, and no other keys than messages have: a
    text may be any JSON.

    Raises:
        InvalidDatasetError: The string begins like a list of messages, and is cut or as Python prints it.
    """
    text = value.lstrip()
    begin = _MESSAGES.match(text)
    if begin is None and not _OBJECT.match(text):
        return None
    try:
        found = json_value(value.strip(), "write messages as JSON")
    except InvalidDatasetError as error:
        if begin is None or begin[2].lower() not in ROLE_OF or _goes_on_behind(error):
            return None
        if begin[1] == '"':
            raise InvalidDatasetError(f"{what}: {error.message}") from error
        if value.rstrip().endswith("]"):
            raise _printed(what) from error
        return None
    turns = found if isinstance(found, list) else [found]
    return turns if turns and all(map(_is_turn, turns)) else None


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, dict):
        return False
    if turn.keys() >= _SHAREGPT:
        word, said, has_others = turn["from"], turn["value"], not turn.keys() <= _SHAREGPT | _MAY_BESIDE
    else:
        word, said = turn.get("role"), turn.get("content")
        has_others = turn.keys().isdisjoint(_SAID) or not turn.keys() <= _MAY_HAVE
    if has_others or not isinstance(said, str | list | None):
        return False
    return isinstance(word, str) and (word.strip().lower() in ROLE_OF or word.strip().lower() in CALLS)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _goes_on_behind(error: InvalidDatasetError) -> bool:
    """Return whether there was a whole JSON value, and other text behind it."""
    cause = error.__cause__
    return isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data"


def _printed(what: str) -> InvalidDatasetError:
    return InvalidDatasetError(
        f"{what} holds a list as Python prints it, in single quotes; write it by json.dumps(), or write the whole "
        "table by df.to_json(path, orient='records', lines=True) and upload that as .jsonl"
    )
