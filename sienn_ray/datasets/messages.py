"""Conversations of a user's row, checked: lists of {role, content} objects in which user and assistant take turns."""

from __future__ import annotations

from collections.abc import Sequence

from sienn_ray.datasets.schema import Message, Role
from sienn_ray.datasets.values import filled, string
from sienn_ray.datasets.wording import kind_of, listed, shown
from sienn_ray.errors import InvalidDatasetError


def conversation(value: object) -> tuple[Message, ...]:
    """The messages of a chat row.

    Raises:
        InvalidDatasetError: They are no conversation that ends with an answer.
    """
    if isinstance(value, str):
        raise InvalidDatasetError(
            "column 'messages' must be a list of {role, content} objects, got a string; "
            "chats need JSON or JSONL, where lists can be written"
        )
    if not isinstance(value, list):
        raise InvalidDatasetError(
            f"column 'messages' must be a list of {{role, content}} objects, got {kind_of(value)}"
        )
    if not value:
        raise InvalidDatasetError("column 'messages' must have at least one user and one assistant message, got none")
    messages = message_list(value, "messages")
    check_turns(messages, "messages")
    if messages[-1].role is not Role.ASSISTANT:
        raise InvalidDatasetError(f"the last message must be the assistant's, got {messages[-1].role}")
    return messages


def message_list(items: Sequence[object], what: str) -> tuple[Message, ...]:
    """Check each message by itself; `what` names the list in errors.

    Raises:
        InvalidDatasetError: One of them isn't a message.
    """
    return tuple(_message(item, f"{what}[{index}]") for index, item in enumerate(items))


def check_turns(messages: Sequence[Message], what: str) -> None:
    """Check who speaks when; `what` names the list in errors.

    Raises:
        InvalidDatasetError: A system message isn't the first, or user and assistant don't take turns.
    """
    first_turn = 1 if messages[0].role is Role.SYSTEM else 0
    for index, message in enumerate(messages[first_turn:], first_turn):
        expected = Role.USER if (index - first_turn) % 2 == 0 else Role.ASSISTANT
        if message.role is Role.SYSTEM:
            raise InvalidDatasetError(f"{what}[{index}].role is system, which may only come first")
        if message.role is not expected:
            raise InvalidDatasetError(
                f"{what}[{index}].role must be {expected}, got {message.role}; "
                "after an optional system message, user and assistant take turns and user begins"
            )


def _message(item: object, what: str) -> Message:
    if not isinstance(item, dict):
        raise InvalidDatasetError(f"{what} must be an object with role and content, got {kind_of(item)}")
    for key in ("role", "content"):
        if key not in item:
            raise InvalidDatasetError(f"{what} has no '{key}'; it has {listed(item)}")
    role = _role(item["role"], f"{what}.role")
    content = string(item["content"], f"{what}.content")
    # An empty system message has a meaning: it keeps a chat template from adding its own.
    return Message(role, content if role is Role.SYSTEM else filled(content, f"{what}.content"))


def _role(value: object, what: str) -> Role:
    text = string(value, what)
    try:
        return Role(text)
    except ValueError as error:
        raise InvalidDatasetError(f"{what} must be one of {', '.join(Role)}, got {shown(text)}") from error
