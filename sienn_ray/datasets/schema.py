"""The canonical row of a dataset, and the schema in which rows are stored.

A user's file has one of a few column sets. Each row becomes a `CanonicalRow`: a list of messages, which may have a
second answer to compare with, or a plain text, so that training knows nothing of the column sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

PARQUET_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # 0-based
        pa.field("line", pa.int64(), nullable=False),  # 1-based: line (CSV, JSONL) or row (JSON array) in the upload
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        pa.field("text", pa.string()),
        # 0-based, among the columns that the dataset's record names. Datasets stored before this column lack it.
        pa.field("empty_columns", pa.list_(pa.int16())),
        # The answer that the last of `messages` is preferred to. Datasets stored before this column lack it.
        pa.field("rejected", pa.string()),
    ]
)


class DatasetFormat(StrEnum):
    """A column set that a dataset may have."""

    INSTRUCTION_RESPONSE = "instruction-response"
    ALPACA = "alpaca"
    INSTRUCTION_INPUT_RESPONSE = "instruction-input-response"
    PROMPT_COMPLETION = "prompt-completion"
    QUESTION_ANSWER = "question-answer"
    PREFERENCE = "preference"
    CHAT = "chat"
    TEXT = "text"


class Role(StrEnum):
    """The speaker of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class CanonicalRow:
    """A checked row: `messages` of a conversation, or `text`; the other one is None.

    Args:
        messages: Turns that end with the assistant's answer.
        text: Plain text.
        rejected: Another answer to the same messages, which the last of them is preferred to.
    """

    messages: tuple[Message, ...] | None = None
    text: str | None = None
    rejected: str | None = None
