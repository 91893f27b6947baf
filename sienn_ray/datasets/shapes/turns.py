"""Turns of a conversation under whatever keys they come, as messages in OpenAI's form.

ShareGPT's turns have `from` and `value` and words of their own for who speaks; others have both sides of an exchange in
one object, or as a list of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.datasets.messages import MESSAGE_KEYS
from sienn_ray.datasets.shapes.embedded_json import embedded
from sienn_ray.datasets.shapes.fields import is_empty
from sienn_ray.datasets.shapes.findings import Findings
from sienn_ray.datasets.shapes.names import CHANGES_LEARNING
from sienn_ray.datasets.shapes.roles import CALLS, ROLE_OF
from sienn_ray.datasets.shapes.table import PAIR_NAMES
from sienn_ray.datasets.strict_json import json_value
from sienn_ray.datasets.tool_calls import CALL_KEYS
from sienn_ray.datasets.values import string
from sienn_ray.datasets.wording import kind_of, listed
from sienn_ray.errors import InvalidDatasetError

_SPEAKER_KEYS = ("role", "from")
_TEXT_KEYS = ("content", "value", "text")
_PLAIN = frozenset({"role", "content"})
_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
# Keys by which Axolotl and ms-swift say whether a turn is learned; OpenAI calls it weight.
_LEARNED_KEYS = ("train", "loss")

Turn = Mapping[str, Any]


def messages_of(value: object, what: str, findings: Findings) -> Any:
    """Return the messages of a list of turns; what is no list is returned as it is.

    Args:
        value: The turns, or their JSON.
        what: Their name in errors.
        findings: Takes keys that nothing is read from.

    Raises:
        InvalidDatasetError: A turn has keys that contradict each other, or that would change what is learned.
    """
    turns = embedded(value, f"column '{what}'")
    if not isinstance(turns, list):
        return turns
    if all(map(is_message, turns)):
        return turns
    messages: list[Any] = []
    for index, turn in enumerate(turns):
        if is_message(turn):
            messages.append(turn)
        else:
            messages.extend(_messages_of_turn(turn, f"{what}[{index}]", f"{what}[]", findings))
    return messages


def history_messages(value: object, what: str, findings: Findings) -> list[Any]:
    """Return the messages of earlier exchanges: lists of a question and an answer, or turns.

    Args:
        value: The exchanges, or their JSON.
        what: Their name in errors.
        findings: Takes keys that nothing is read from.

    Raises:
        InvalidDatasetError: They are neither.
    """
    exchanges = embedded(value, f"column '{what}'")
    if not isinstance(exchanges, list):
        raise InvalidDatasetError(
            f"column '{what}' must be a list of [question, answer] pairs, got {kind_of(exchanges)}"
        )
    if all(isinstance(each, dict) for each in exchanges):
        return list(messages_of(exchanges, what, findings))
    messages = []
    for index, exchange in enumerate(exchanges):
        place = f"{what}[{index}]"
        if not isinstance(exchange, list) or len(exchange) != 2:
            found = f"{len(exchange)} items" if isinstance(exchange, list) else kind_of(exchange)
            raise InvalidDatasetError(f"{place} must be a list of a question and an answer, got {found}")
        messages += [
            {"role": "user", "content": string(exchange[0], f"{place}[0]")},
            {"role": "assistant", "content": string(exchange[1], f"{place}[1]")},
        ]
    return messages


def is_message(turn: Any) -> bool:
    """Return whether a turn is a message already, with nothing but role and content."""
    if type(turn) is not dict or turn.keys() != _PLAIN:
        return False
    role = turn["role"]
    return type(role) is str and role in _PLAIN_ROLES


def _messages_of_turn(turn: object, place: str, pattern: str, findings: Findings) -> list[Any]:
    if not isinstance(turn, dict):
        return [turn]
    speaker = _only_key(turn, _SPEAKER_KEYS, place)
    if speaker is None:
        return _exchange(turn, place, pattern, findings) or [turn]
    word = turn[speaker]
    name = word.strip().lower() if isinstance(word, str) else word
    text = _only_key(turn, _TEXT_KEYS, place)
    if isinstance(name, str) and name in CALLS:
        message: dict[str, Any] = {"role": "assistant", "tool_calls": _calls(turn, text, place)}
    else:
        message = {"role": ROLE_OF.get(name, word) if isinstance(name, str) else word}
        if text is not None:
            message["content"] = turn[text]
    for key, value in turn.items():
        if key in MESSAGE_KEYS - _PLAIN:
            message.setdefault(key, value)
        elif key not in (speaker, text):
            _other_key(message, key, value, place, pattern, findings)
    return [message]


def _only_key(turn: Turn, keys: tuple[str, ...], place: str) -> str | None:
    """The one of several keys that a turn has; of two, the one that is filled."""
    found = [key for key in keys if key in turn]
    filled = [key for key in found if not is_empty(turn[key])]
    if len(filled) > 1 and turn[filled[0]] != turn[filled[1]] and keys is _TEXT_KEYS:
        raise InvalidDatasetError(f"{place} has both '{filled[0]}' and '{filled[1]}', which differ; keep one of them")
    return next(iter([*filled, *found]), None)


def _other_key(message: dict[str, Any], key: str, value: object, place: str, pattern: str, findings: Findings) -> None:
    if key in _SPEAKER_KEYS or key in _TEXT_KEYS or is_empty(value):
        return
    if key in _LEARNED_KEYS and isinstance(value, int) and value in (0, 1):
        _set_weight(message, key, int(value), place)
    elif key in CHANGES_LEARNING:
        raise InvalidDatasetError(
            f"{place}.{key} would change what is learned, and can't be read; remove it"
            + ("" if not isinstance(value, int | float) else ", or use weight with 0 or 1")
        )
    else:
        findings.ignore(f"{pattern}.{key}")


def _set_weight(message: dict[str, Any], key: str, weight: int, place: str) -> None:
    if message["role"] == "assistant":
        if message.get("weight", weight) != weight:
            raise InvalidDatasetError(f"{place} has both weight and {key}, which differ; keep weight")
        message["weight"] = weight
    elif weight:
        raise InvalidDatasetError(
            f"{place}.{key} is true on a message of the {message['role']}, but only the assistant's messages are "
            "learned; remove it"
        )


def _exchange(turn: Turn, place: str, pattern: str, findings: Findings) -> list[Any] | None:
    """The messages of a turn that has both sides; None if it hasn't."""
    pair = next(((asked, said) for asked, said in PAIR_NAMES if asked in turn and said in turn), None)
    if pair is None:
        return None
    asked, said = pair
    system = turn.get("system")
    answer = {"role": "assistant", "content": turn[said]}
    if not is_empty(turn.get("weight")):
        answer["weight"] = turn["weight"]
    for key, value in turn.items():
        if key not in (asked, said, "system", "weight"):
            _other_key(answer, key, value, place, pattern, findings)
    return [
        *([] if is_empty(system) else [{"role": "system", "content": system}]),
        {"role": "user", "content": turn[asked]},
        answer,
    ]


def _calls(turn: Turn, text: str | None, place: str) -> list[Any]:
    if text is None:
        raise InvalidDatasetError(f"{place} has no 'value'; it has {listed(turn)}")
    what = f"{place}.{text}"
    value = turn[text]
    if isinstance(value, str):
        try:
            value = json_value(value.strip(), "write the call as JSON")
        except InvalidDatasetError as error:
            raise InvalidDatasetError(
                f"{what} must be the JSON of a call, with name and arguments: {error.message}"
            ) from error
    return [_call(each, what) for each in (value if isinstance(value, list) else [value])]


def _call(call: object, what: str) -> Any:
    if not isinstance(call, dict) or "function" in call or "name" not in call:
        return call
    if unknown := call.keys() - CALL_KEYS:
        raise InvalidDatasetError(
            f"{what} is a call with {listed(sorted(unknown))}; it may have name, arguments and id"
        )
    return call
