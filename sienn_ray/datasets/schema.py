"""The canonical row of a dataset, and the schema in which rows are stored.

A user's file has one of a few column sets. Each row becomes a `CanonicalRow`: a list of messages, which may have a
second answer to compare with, or a plain text, so that training knows nothing of the column sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, assert_never

import pyarrow as pa

from sienn_ray.errors import InvalidDatasetError

PARQUET_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # 0-based
        pa.field("line", pa.int64(), nullable=False),  # 1-based: line (CSV, JSONL) or row (JSON array) in the upload
        # `extra` is JSON: what a message has beside role and content (see `stored_rows`). Null for most messages;
        # datasets stored before it lack it, as they lack the columns behind `rejected`.
        pa.field(
            "messages",
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("extra", pa.string())])),
        ),
        pa.field("text", pa.string()),
        # 0-based, among the columns that the dataset's record names. Datasets stored before this column lack it.
        pa.field("empty_columns", pa.list_(pa.int16())),
        # The answer that the last of `messages` is preferred to. Datasets stored before this column lack it.
        pa.field("rejected", pa.string()),
        pa.field("rejected_extra", pa.string()),  # as `extra` of a message
        pa.field("tools", pa.string()),  # JSON: a list of tools in OpenAI's form
        pa.field("label", pa.bool_()),  # whether the last message is a good answer
        pa.field("chat_template_kwargs", pa.string()),  # JSON: variables of the chat template
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
    UNPAIRED_PREFERENCE = "unpaired-preference"
    CHAT = "chat"
    TEXT = "text"


class RowKind(StrEnum):
    """Kinds of a dataset's checked rows, whatever its column set is."""

    CONVERSATION = "conversation"
    TEXT = "text"
    PREFERENCE = "preference"
    UNPAIRED_PREFERENCE = "unpaired-preference"  # an answer each, with a label that says whether it is a good one

    @property
    def plural(self) -> str:
        """Such rows, in an error message."""
        match self:
            case RowKind.CONVERSATION:
                return "conversations"
            case RowKind.TEXT:
                return "plain text"
            case RowKind.PREFERENCE:
                return "preferences"
            case RowKind.UNPAIRED_PREFERENCE:
                return "labelled answers"
            case _:
                assert_never(self)

    @property
    def num_sequences(self) -> int:
        """Token sequences of a row: two where a chosen and a rejected answer are compared."""
        match self:
            case RowKind.CONVERSATION | RowKind.TEXT | RowKind.UNPAIRED_PREFERENCE:
                return 1
            case RowKind.PREFERENCE:
                return 2
            case _:
                assert_never(self)


def row_kind(dataset_format: str) -> RowKind:
    """Return the kind of rows that a format makes.

    Args:
        dataset_format: A `DatasetFormat`, or its value in a record.

    Raises:
        InvalidDatasetError: It is no format of this version.
    """
    try:
        known = DatasetFormat(dataset_format)
    except ValueError:
        raise InvalidDatasetError(
            f"the dataset's format is '{dataset_format}', which is none of {', '.join(DatasetFormat)}; upload it again"
        ) from None
    match known:
        case DatasetFormat.TEXT:
            return RowKind.TEXT
        case DatasetFormat.PREFERENCE:
            return RowKind.PREFERENCE
        case DatasetFormat.UNPAIRED_PREFERENCE:
            return RowKind.UNPAIRED_PREFERENCE
        case (
            DatasetFormat.INSTRUCTION_RESPONSE
            | DatasetFormat.ALPACA
            | DatasetFormat.INSTRUCTION_INPUT_RESPONSE
            | DatasetFormat.PROMPT_COMPLETION
            | DatasetFormat.QUESTION_ANSWER
            | DatasetFormat.CHAT
        ):
            return RowKind.CONVERSATION
        case _:
            assert_never(known)


def check_same_kind(dataset_format: str, validation_format: str) -> RowKind:
    """Refuse to evaluate on another kind of rows than what is trained on; return the kind that both have.

    Raises:
        InvalidDatasetError: The kinds differ.
    """
    kind, validation_kind = row_kind(dataset_format), row_kind(validation_format)
    if kind is not validation_kind:
        raise InvalidDatasetError(
            f"the dataset's format is '{dataset_format}' and the validation dataset's is '{validation_format}'; "
            f"{kind.plural} and {validation_kind.plural} can't be mixed, choose two datasets of the same kind"
        )
    return kind


def check_one_kind(formats: Mapping[str, str]) -> RowKind:
    """Refuse to mix datasets that hold different kinds of rows; return the kind that all have.

    Args:
        formats: The format of each dataset, by its id.

    Raises:
        InvalidDatasetError: The kinds differ.
    """
    kinds = {dataset_id: row_kind(dataset_format) for dataset_id, dataset_format in formats.items()}
    (first_id, first), *others = kinds.items()
    for other_id, other in others:
        if other is not first:
            raise InvalidDatasetError(
                f"dataset {first_id} has format '{formats[first_id]}' and dataset {other_id} '{formats[other_id]}'; "
                f"{first.plural} and {other.plural} can't be mixed, choose datasets of the same kind"
            )
    return first


class Role(StrEnum):
    """The speaker of a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ToolCall(NamedTuple):
    """A call of a tool in an assistant's message.

    Args:
        name: The tool's name.
        arguments: A JSON object, as text.
        id: The call's id, which the tool's message names; None where the row has none.
    """

    name: str
    arguments: str
    id: str | None = None


class Message(NamedTuple):
    """One turn of a conversation; a tuple, which is made in a fraction of a frozen data class's time.

    Args:
        role: The speaker.
        content: What is said; empty in a message that only calls tools.
        reasoning_content: The assistant's reasoning before its answer.
        tool_calls: Calls of tools in an assistant's message.
        tool_call_id: The call that a tool's message answers.
        name: The speaker's name, or the tool's.
        weight: 0 where an assistant's message is read, but not learned; else 1.
        is_prefix: Whether the assistant's next message goes on with this one.
    """

    role: Role
    content: str
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: int = 1
    is_prefix: bool = False


class CanonicalRow(NamedTuple):
    """A checked row: `messages` of a conversation, or `text`; the other one is None.

    Args:
        messages: Turns that end with the assistant's answer.
        text: Plain text.
        rejected: Another answer to the same messages, which the last of them is preferred to.
        tools: Tools that the assistant may call: a JSON list in OpenAI's form, as text.
        label: Whether the last message is a good answer, for losses that learn from that.
        chat_template_kwargs: Variables of the chat template for this row: a JSON object, as text.
    """

    messages: tuple[Message, ...] | None = None
    text: str | None = None
    rejected: Message | None = None
    tools: str | None = None
    label: bool | None = None
    chat_template_kwargs: str | None = None
