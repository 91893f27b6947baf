"""Rows that are nothing but strings, as most are: read in a third of the time that others take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sienn_ray.datasets.schema import CanonicalRow, Message, Role
from sienn_ray.datasets.shapes.fields import is_placeholder
from sienn_ray.datasets.shapes.layout import Layout
from sienn_ray.datasets.shapes.names import Part
from sienn_ray.datasets.shapes.rendered_text import chat_mark
from sienn_ray.datasets.shapes.turns import is_message

PlainReader = Callable[[Mapping[str, Any]], CanonicalRow | None]

# A shorter answer may be what a program writes for a missing value.
_MIN_ANSWER_CHARS = 10
_ROLES = {str(role): role for role in Role}


def plain_reader(layout: Layout) -> PlainReader | None:
    """Return a reader of rows with this layout that are plain, which returns None for others; None if none can be."""
    inputs = layout.beside.get(Part.INPUT, ())
    if len(layout.beside) != len(inputs) or len(inputs) > 1 or layout.refused:
        return None
    keys = {part: column.key for part, column in layout.parts.items()}
    if keys.keys() == {Part.PROMPT, Part.COMPLETION}:
        input_key = inputs[0].key if inputs else None
        return _pair_reader(keys[Part.PROMPT], input_key, keys[Part.COMPLETION])
    if not inputs and keys.keys() == {Part.PROMPT, Part.CHOSEN, Part.REJECTED}:
        return _compared_reader(keys[Part.PROMPT], keys[Part.CHOSEN], keys[Part.REJECTED])
    if not inputs and keys.keys() == {Part.TEXT}:
        return _text_reader(keys[Part.TEXT])
    if not inputs and keys.keys() == {Part.MESSAGES}:
        return _conversation_reader(keys[Part.MESSAGES])
    return None


def _text_reader(key: str) -> PlainReader:
    def read(values: Mapping[str, Any]) -> CanonicalRow | None:
        text = values[key]
        return CanonicalRow(text=text) if _is_plain(text) and chat_mark(text) is None else None

    return read


def _conversation_reader(key: str) -> PlainReader:
    def read(values: Mapping[str, Any]) -> CanonicalRow | None:
        turns = values[key]
        if type(turns) is not list or not turns:
            return None
        messages = []
        for turn in turns:
            if not is_message(turn) or not _is_plain(turn["content"]):
                return None
            messages.append(Message(_ROLES[turn["role"]], turn["content"]))
        return CanonicalRow(tuple(messages)) if messages[-1].role is Role.ASSISTANT else None

    return read


def _pair_reader(prompt_key: str, input_key: str | None, completion_key: str) -> PlainReader:
    def read(values: Mapping[str, Any]) -> CanonicalRow | None:
        prompt, completion = values[prompt_key], values[completion_key]
        if not (_is_plain(prompt) and _is_plain(completion) and len(completion) >= _MIN_ANSWER_CHARS):
            return None
        if input_key is not None and (text := values[input_key]) != "":
            if not _is_plain(text) or is_placeholder(text):
                return None
            prompt = f"{prompt}\n\n{text}"
        return CanonicalRow((Message(Role.USER, prompt), Message(Role.ASSISTANT, completion)))

    return read


def _compared_reader(prompt_key: str, chosen_key: str, rejected_key: str) -> PlainReader:
    def read(values: Mapping[str, Any]) -> CanonicalRow | None:
        prompt, chosen, rejected = values[prompt_key], values[chosen_key], values[rejected_key]
        if not (_is_plain(prompt) and _is_plain(chosen) and _is_plain(rejected)) or chosen == rejected:
            return None
        if chosen.startswith("Human:"):  # a conversation as one text
            return None
        messages = (Message(Role.USER, prompt), Message(Role.ASSISTANT, chosen))
        return CanonicalRow(messages, rejected=Message(Role.ASSISTANT, rejected))

    return read


def _is_plain(value: object) -> bool:
    """Return whether a value is a text that begins with a character that is seen, and can't be the JSON of messages."""
    if type(value) is not str or not value or value[0] in "[{":
        return False
    return "!" <= value[0] <= "~" and (value.isascii() or _is_utf8(value))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
