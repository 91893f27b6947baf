"""Conversion of a row as a user's file has it to the one that is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from sienn_ray.datasets.chat_rows import chat_row
from sienn_ray.datasets.columns import by_normalized_column
from sienn_ray.datasets.preference import preference_row
from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat, Message, Role
from sienn_ray.datasets.values import column_value, filled_string, optional_string


def canonical_row(dataset_format: DatasetFormat, raw_row: Mapping[str, Any]) -> CanonicalRow:
    """Check one row and bring it into its stored form.

    Args:
        dataset_format: What `columns.detect_format` told of the file.
        raw_row: Values by column, as the file has them. Column names match as in `detect_format`.

    Raises:
        InvalidDatasetError: The row is not what its format asks for. The error bears no line; the caller knows it.

    Example:
        >>> row = canonical_row(DatasetFormat.QUESTION_ANSWER, {"Question": "Why?", "Answer": "So."})
        >>> [(message.role.value, message.content) for message in row.messages]
        [('user', 'Why?'), ('assistant', 'So.')]
    """
    row = by_normalized_column(raw_row)
    match dataset_format:
        case DatasetFormat.TEXT:
            return CanonicalRow(text=filled_string(row, "text"))
        case DatasetFormat.CHAT:
            return chat_row(
                column_value(row, "messages"),
                tools=row.get("tools") or row.get("functions"),
                chat_template_kwargs=row.get("chat_template_kwargs"),
            )
        case DatasetFormat.PREFERENCE:
            return preference_row(row)
        # Rows of a JSON file may differ in their keys, so `input` is read wherever there is an instruction: if only the
        # first row lacks it, the others must not lose theirs.
        case DatasetFormat.INSTRUCTION_RESPONSE | DatasetFormat.INSTRUCTION_INPUT_RESPONSE:
            return _turn(row, "instruction", "response", "input")
        case DatasetFormat.ALPACA:
            return _turn(row, "instruction", "output", "input")
        case DatasetFormat.PROMPT_COMPLETION:
            return _turn(row, "prompt", "completion")
        case DatasetFormat.QUESTION_ANSWER:
            return _turn(row, "question", "answer")
        case _:
            assert_never(dataset_format)


def _turn(
    row: Mapping[str, Any], prompt_column: str, completion_column: str, input_column: str | None = None
) -> CanonicalRow:
    prompt = filled_string(row, prompt_column)
    context = optional_string(row, input_column) if input_column else ""
    if context.strip():
        prompt = f"{prompt}\n\n{context}"
    completion = filled_string(row, completion_column)
    return CanonicalRow(messages=(Message(Role.USER, prompt), Message(Role.ASSISTANT, completion)))
