"""Rows of a prompt and its completion, with whatever stands beside them."""

from __future__ import annotations

from typing import Any

from sienn_ray.datasets.chat_rows import chat_row
from sienn_ray.datasets.schema import CanonicalRow, Message, Role
from sienn_ray.datasets.shapes.fields import Fields
from sienn_ray.datasets.shapes.labels import is_good
from sienn_ray.datasets.shapes.names import Part
from sienn_ray.datasets.shapes.turns import history_messages, messages_of
from sienn_ray.errors import InvalidDatasetError

_PLAIN = frozenset({Part.INPUT})


def pair_row(fields: Fields) -> CanonicalRow:
    """Check a row of a prompt and its completion.

    Raises:
        InvalidDatasetError: A part isn't what it has to be.
    """
    if fields.layout.beside.keys() <= _PLAIN and (row := _plain_row(fields)):
        return row
    asked = [*history_of(fields), *prompt_messages(fields)]
    return checked_row(fields, [*system_messages(fields, asked), *asked, *_completion_messages(fields)])


def chat_messages_row(fields: Fields) -> CanonicalRow:
    """Check a row that is a conversation.

    Raises:
        InvalidDatasetError: A part isn't what it has to be.
    """
    value, name = fields.value(Part.MESSAGES)
    messages = messages_of(value, name, fields.findings)
    if isinstance(messages, list):
        messages = [*system_messages(fields, messages), *messages]
    return checked_row(fields, messages, name)


def checked_row(fields: Fields, messages: Any, what: str = "messages") -> CanonicalRow:
    """Check messages that end with an answer, with the tools and the label beside them.

    Raises:
        InvalidDatasetError: A part isn't what it has to be.
    """
    if not fields.layout.beside:
        return chat_row(messages, what=what)
    return chat_row(
        messages,
        tools=fields.only_object(Part.TOOLS),
        label=is_good(*fields.label()) if Part.LABEL in fields.layout.beside else None,
        chat_template_kwargs=fields.only_object(Part.TEMPLATE_VARIABLES),
        what=what,
    )


def history_of(fields: Fields) -> list[Any]:
    """Return earlier turns, which come before the prompt."""
    value = fields.only_object(Part.HISTORY)
    return [] if value is None else history_messages(value, fields.layout.beside[Part.HISTORY][0].name, fields.findings)


def system_messages(fields: Fields, others: list[Any]) -> list[Any]:
    """Return the system message of its own column, if there is one.

    Args:
        fields: The row.
        others: The messages behind it.

    Raises:
        InvalidDatasetError: The others begin with another one.
    """
    system = fields.only_text(Part.SYSTEM)
    if system is None:
        return []
    first = others[0] if others and isinstance(others[0], dict) else {}
    if first.get("role") != "system":
        return [{"role": "system", "content": system}]
    if first.get("content") == system:
        return []
    name = fields.layout.beside[Part.SYSTEM][0].name
    raise InvalidDatasetError(
        f"column '{name}' and the first message are both a system message, and differ; keep one of them, or have the "
        f'column left out by columns={{"{name}": "ignore"}}'
    )


def prompt_messages(fields: Fields) -> list[Any]:
    """Return the prompt as messages; those of the assistant among them aren't learned.

    Raises:
        InvalidDatasetError: It is neither text nor messages.
    """
    value, name = fields.text_or_messages(Part.PROMPT)
    if not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
        return [{"role": "user", "content": prompt_text(fields)}]
    if inputs := list(fields.beside(Part.INPUT)):
        raise InvalidDatasetError(
            f"column '{inputs[0][1].name}' can't be put behind column '{name}', which is a list of messages; put it "
            "into them"
        )
    messages = messages_of(value, name, fields.findings)
    return [_unlearned(message) for message in messages]


def prompt_text(fields: Fields) -> str:
    """Return the text of the prompt, with what stands behind it.

    Raises:
        InvalidDatasetError: A part of it is no string, or it is blank.
    """
    return "\n\n".join([fields.text(Part.PROMPT), *fields.input_texts()])


def _plain_row(fields: Fields) -> CanonicalRow | None:
    """A row of two strings, which most are; None if it may be something else."""
    (prompt, _), (completion, name) = fields.value(Part.PROMPT), fields.value(Part.COMPLETION)
    if not isinstance(prompt, str) or prompt.startswith(("[", "{")):
        return None
    if not isinstance(completion, str) or completion.startswith(("[", "{")):
        return None
    prompt = prompt_text(fields) if fields.layout.beside else fields.text(Part.PROMPT)
    answer = fields.checked_answer(completion, f"column '{name}'")
    return CanonicalRow(messages=(Message(Role.USER, prompt), Message(Role.ASSISTANT, answer)))


def _completion_messages(fields: Fields) -> list[Any]:
    value, name = fields.text_or_messages(Part.COMPLETION)
    if isinstance(value, dict) and ("role" in value or "from" in value):
        value = [value]
    is_conversation = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    if is_conversation:
        messages = list(messages_of(value, name, fields.findings))
    else:
        messages = [{"role": "assistant", "content": fields.answer()}]
    reasoning = fields.only(Part.REASONING)
    if reasoning is not None:
        if is_conversation:
            raise InvalidDatasetError(
                f"column '{reasoning[1]}' can't be read beside column '{name}', which is a list of messages; put it "
                "into the assistant's as reasoning_content"
            )
        messages[0]["reasoning_content"] = fields.only_text(Part.REASONING)
    return messages


def _unlearned(message: Any) -> Any:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    if message.get("weight"):
        raise InvalidDatasetError(
            f"a message of the prompt has weight {message['weight']}, but only the completion is learned; remove it"
        )
    return {**message, "weight": 0}
