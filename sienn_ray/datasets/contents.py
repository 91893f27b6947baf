"""Contents of messages: a string, or a list of parts of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.json_values import json_text
from sienn_ray.datasets.schema import Role
from sienn_ray.datasets.values import string
from sienn_ray.datasets.wording import kind_of, listed, shown
from sienn_ray.errors import InvalidDatasetError

# The key of each kind of part of text, in the APIs of OpenAI.
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_REASONING_PARTS = {"thinking": "thinking", "reasoning": "text"}


@dataclass(frozen=True, slots=True)
class Said:
    """The text of a message, and the reasoning among its parts."""

    text: str
    reasoning: str | None = None


def said_in(value: object, what: str, role: Role) -> Said:
    """Read the content of a message; `what` names it in errors.

    Parts are joined by line breaks, as they are when a model is asked.

    Raises:
        InvalidDatasetError: It is no text.
    """
    if isinstance(value, list):
        if role is Role.TOOL and not _are_parts(value):
            return Said(json_text(value, what))  # the tool's answer itself
        return _joined(value, what, role)
    if isinstance(value, dict) and role is Role.TOOL:
        return Said(json_text(value, what))
    return Said(string(value, what))


def _are_parts(values: Sequence[object]) -> bool:
    return all(isinstance(each, str) or (isinstance(each, dict) and "type" in each) for each in values)


def _joined(parts: Sequence[object], what: str, role: Role) -> Said:
    texts, reasoning = [], []
    for index, part in enumerate(parts):
        place = f"{what}[{index}]"
        if isinstance(part, str):
            texts.append(string(part, place))
            continue
        kind = _kind(part, place)
        if kind in _TEXT_PARTS:
            texts.append(_text(part, _TEXT_PARTS[kind], place))
        elif kind in _REASONING_PARTS and role is Role.ASSISTANT:
            reasoning.append(_text(part, _REASONING_PARTS[kind], place))
        else:
            raise InvalidDatasetError(
                f"{place} is a part of type {shown(kind)}, and only text is learned; remove such parts, or the row"
            )
    return Said("\n".join(texts), "\n".join(reasoning) or None)


def _kind(part: Any, what: str) -> str:
    if not isinstance(part, dict):
        raise InvalidDatasetError(f"{what} must be a part such as {{type: text, text: ...}}, got {kind_of(part)}")
    if "type" not in part:
        if isinstance(part.get("text"), str):
            return "text"
        raise InvalidDatasetError(f"{what} must be a part such as {{type: text, text: ...}}; it has {listed(part)}")
    return string(part["type"], f"{what}.type")


def _text(part: Any, key: str, what: str) -> str:
    if key not in part:
        raise InvalidDatasetError(f"{what} has no '{key}'; it has {listed(part)}")
    value = part[key]
    if not isinstance(value, list):
        return string(value, f"{what}.{key}")
    # Mistral has parts of text within one of thinking.
    return _joined(value, f"{what}.{key}", Role.USER).text
