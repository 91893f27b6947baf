"""Rows that say which of two answers to a prompt is the better one, for direct preference optimization.

The columns are those of TRL's preference format with an explicit prompt, plain or conversational:
https://huggingface.co/docs/trl/dataset_formats#preference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.datasets.chat_rows import different, variables_text
from sienn_ray.datasets.messages import message_list
from sienn_ray.datasets.schema import CanonicalRow, Message, Role
from sienn_ray.datasets.tool_calls import tools_text
from sienn_ray.datasets.turns import check_turns
from sienn_ray.datasets.values import column_value, filled, string
from sienn_ray.datasets.wording import kind_of
from sienn_ray.errors import InvalidDatasetError


def preference_row(row: Mapping[str, Any]) -> CanonicalRow:
    """Check a row of a preference dataset.

    Args:
        row: Values by normalized column; each is a string or a list of messages, whatever the others are.

    Raises:
        InvalidDatasetError: A column holds neither, is blank, or the two answers are the same.
    """
    prompt = _prompt(column_value(row, "prompt"))
    chosen, rejected = (_answer(column_value(row, column), column) for column in ("chosen", "rejected"))
    return CanonicalRow(
        messages=(*prompt, chosen),
        rejected=different(rejected, chosen),
        tools=tools_text(row.get("tools"), "column 'tools'"),
        chat_template_kwargs=variables_text(row.get("chat_template_kwargs")),
    )


def _prompt(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        return (Message(Role.USER, _text(value, "prompt")),)
    if not value:
        raise InvalidDatasetError("column 'prompt' must have at least one user message, got none")
    messages = message_list(value, "prompt")
    check_turns(messages, "prompt")
    if messages[-1].role not in {Role.USER, Role.TOOL}:
        raise InvalidDatasetError(
            f"the last message of column 'prompt' must be the user's or a tool's, got {messages[-1].role}; the answers "
            "belong in 'chosen' and 'rejected'"
        )
    return messages


def _answer(value: object, column: str) -> Message:
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return Message(Role.ASSISTANT, _text(value, column))
    if len(value) != 1:
        raise InvalidDatasetError(
            f"column '{column}' must have one message, the assistant's, got {len(value):,}; those before it belong in "
            "'prompt'"
        )
    (message,) = message_list(value, column)
    if message.role is not Role.ASSISTANT:
        raise InvalidDatasetError(f"{column}[0].role must be assistant, got {message.role}")
    return message


def _text(value: object, column: str) -> str:
    if not isinstance(value, str):
        raise InvalidDatasetError(
            f"column '{column}' must be a string or a list of {{role, content}} objects, got {kind_of(value)}"
        )
    return filled(string(value, f"column '{column}'"), f"column '{column}'")
