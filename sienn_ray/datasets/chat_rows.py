"""Rows in OpenAI's form, checked: messages, and the tools, the worse answer or the label that go with them."""

from __future__ import annotations

from sienn_ray.datasets.json_values import json_object, json_text
from sienn_ray.datasets.messages import checked_message, message_list
from sienn_ray.datasets.schema import CanonicalRow, Message, Role
from sienn_ray.datasets.tool_calls import tools_text
from sienn_ray.datasets.turns import check_answered, check_turns
from sienn_ray.datasets.wording import kind_of
from sienn_ray.errors import InvalidDatasetError


def chat_row(
    messages: object,
    *,
    tools: object = None,
    rejected: object = None,
    label: bool | None = None,
    chat_template_kwargs: object = None,
    what: str = "messages",
) -> CanonicalRow:
    """Check a conversation with all that a row may say about it.

    Args:
        messages: A list of messages that ends with the assistant's.
        tools: A list of tools, or its JSON.
        rejected: A message of the assistant that the last one is preferred to.
        label: Whether the last message is a good answer.
        chat_template_kwargs: Variables of the chat template, an object or its JSON.
        what: The name of the messages in errors.

    Raises:
        InvalidDatasetError: One of them isn't what it has to be.
    """
    found = conversation(messages, what)
    return CanonicalRow(
        messages=found,
        rejected=None if rejected is None else _rejected(rejected, found[-1]),
        tools=tools_text(tools, "column 'tools'"),
        label=label,
        chat_template_kwargs=variables_text(chat_template_kwargs),
    )


def conversation(value: object, what: str = "messages") -> tuple[Message, ...]:
    """Check the messages of a chat row; `what` names them in errors.

    Raises:
        InvalidDatasetError: They are no conversation that ends with an answer.
    """
    if isinstance(value, str):
        raise InvalidDatasetError(
            f"column '{what}' must be a list of {{role, content}} objects, got a string; "
            "chats need JSON or JSONL, where lists can be written"
        )
    if not isinstance(value, list):
        raise InvalidDatasetError(f"column '{what}' must be a list of {{role, content}} objects, got {kind_of(value)}")
    if not value:
        raise InvalidDatasetError(f"column '{what}' must have at least one user and one assistant message, got none")
    messages = message_list(value, what)
    check_turns(messages, what)
    check_answered(messages, what)
    return messages


def _rejected(value: object, chosen: Message) -> Message:
    message = checked_message(value, "rejected")
    if message.role is not Role.ASSISTANT:
        raise InvalidDatasetError(f"rejected.role must be assistant, got {message.role}")
    return different(message, chosen)


def different(rejected: Message, chosen: Message) -> Message:
    """Return the worse answer of a preference row.

    Raises:
        InvalidDatasetError: It is the better one as well.
    """
    if chosen == rejected:
        raise InvalidDatasetError(
            "columns 'chosen' and 'rejected' hold the same answer, so there is nothing to learn; change one of them or "
            "remove the row"
        )
    return rejected


def variables_text(value: object) -> str | None:
    """Check a row's variables of the chat template and return their JSON; None where there are none.

    Raises:
        InvalidDatasetError: They are no object.
    """
    if value is None or value == "":
        return None
    found = json_object(value, "column 'chat_template_kwargs'")
    return json_text(found, "column 'chat_template_kwargs'") if found else None
