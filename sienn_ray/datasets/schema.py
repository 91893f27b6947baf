"""What a row of a dataset is, as users write it and as it is stored.

A user's file has one of a few column sets. Each row becomes a `CanonicalRow`, which is either a list of messages or a
plain text, so that training knows nothing of the column sets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from sienn_ray.datasets.wording import kind_of, listed, shown
from sienn_ray.errors import InvalidDatasetError

PARQUET_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # 0-based
        pa.field("line", pa.int64(), nullable=False),  # 1-based: line (CSV, JSONL) or row (JSON array) in the upload
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        pa.field("text", pa.string()),
        # 0-based, among the columns that the dataset's record names. Datasets stored before this column lack it.
        pa.field("empty_columns", pa.list_(pa.int16())),
    ]
)


class DatasetFormat(StrEnum):
    """A column set that a dataset may have."""

    INSTRUCTION_RESPONSE = "instruction-response"
    ALPACA = "alpaca"
    INSTRUCTION_INPUT_RESPONSE = "instruction-input-response"
    PROMPT_COMPLETION = "prompt-completion"
    QUESTION_ANSWER = "question-answer"
    CHAT = "chat"
    TEXT = "text"


class Role(StrEnum):
    """Who speaks in a message."""

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
    """A checked row: `messages` of a conversation, or `text`; the other one is None."""

    messages: tuple[Message, ...] | None = None
    text: str | None = None


_REQUIRED_COLUMNS: dict[DatasetFormat, tuple[str, ...]] = {
    DatasetFormat.INSTRUCTION_RESPONSE: ("instruction", "response"),
    DatasetFormat.ALPACA: ("instruction", "output"),
    DatasetFormat.INSTRUCTION_INPUT_RESPONSE: ("instruction", "input", "response"),
    DatasetFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DatasetFormat.QUESTION_ANSWER: ("question", "answer"),
    DatasetFormat.CHAT: ("messages",),
    DatasetFormat.TEXT: ("text",),
}

# (prompt, completion, input). Rows of a JSON file may differ in their keys, so `input` is read wherever there is an
# instruction: if only the first row lacks it, the others must not lose theirs.
_TURN_COLUMNS: dict[DatasetFormat, tuple[str, str, str | None]] = {
    DatasetFormat.INSTRUCTION_RESPONSE: ("instruction", "response", "input"),
    DatasetFormat.ALPACA: ("instruction", "output", "input"),
    DatasetFormat.INSTRUCTION_INPUT_RESPONSE: ("instruction", "response", "input"),
    DatasetFormat.PROMPT_COMPLETION: ("prompt", "completion", None),
    DatasetFormat.QUESTION_ANSWER: ("question", "answer", None),
}

_ACCEPTED = (
    "instruction,response; instruction,input,response; instruction,input,output (input is optional); "
    "prompt,completion; question,answer; messages; text"
)


def detect_format(columns: Collection[str]) -> DatasetFormat:
    """Tell a dataset's format from its columns.

    Names match exactly, but for case and for white space at either end. Columns beyond those of the format are ignored,
    and `text` counts only where nothing else fits.

    Raises:
        InvalidDatasetError: The columns fit no format, or more than one.
    """
    names = {normalized_column(column) for column in columns}
    fits = [fmt for fmt, required in _REQUIRED_COLUMNS.items() if names.issuperset(required)]
    if DatasetFormat.INSTRUCTION_INPUT_RESPONSE in fits:
        fits.remove(DatasetFormat.INSTRUCTION_RESPONSE)
    if len(fits) > 1 and DatasetFormat.TEXT in fits:
        fits.remove(DatasetFormat.TEXT)  # many sets (Alpaca's own) carry the rendered row as `text` beside its parts
    if not fits:
        raise InvalidDatasetError(f"unknown columns: found {listed(columns)}; accepted column sets: {_ACCEPTED}")
    if len(fits) > 1:
        raise InvalidDatasetError(
            f"ambiguous columns: found {listed(columns)}, which fits the formats {', '.join(fits)}; "
            f"keep the columns of one; accepted column sets: {_ACCEPTED}"
        )
    return fits[0]


def canonical_row(dataset_format: DatasetFormat, raw_row: Mapping[str, Any]) -> CanonicalRow:
    """Check one row and bring it into its stored form.

    Args:
        dataset_format: What `detect_format` told of the file.
        raw_row: Values by column, as the file has them. Column names match as in `detect_format`.

    Raises:
        InvalidDatasetError: The row is not what its format asks for. The error bears no line; the caller knows it.
    """
    row = _by_normalized_column(raw_row)
    if dataset_format is DatasetFormat.TEXT:
        return CanonicalRow(text=_filled_string(row, "text"))
    if dataset_format is DatasetFormat.CHAT:
        return CanonicalRow(messages=_chat(_value(row, "messages")))
    prompt_column, completion_column, input_column = _TURN_COLUMNS[dataset_format]
    prompt = _filled_string(row, prompt_column)
    context = _optional_string(row, input_column) if input_column else ""
    if context.strip():
        prompt = f"{prompt}\n\n{context}"
    completion = _filled_string(row, completion_column)
    return CanonicalRow(messages=(Message(Role.USER, prompt), Message(Role.ASSISTANT, completion)))


def empty_columns(names: Sequence[str], raw_row: Mapping[str, Any]) -> list[int]:
    """Which of the columns `names` hold nothing in a row: null, nothing but white space, or not there at all."""
    try:
        values = [raw_row[name] for name in names]
    except KeyError:  # rows of a JSON file may lack a column, or write it with other case or spaces
        row = {normalized_column(name): value for name, value in raw_row.items()}
        values = [row.get(normalized_column(name)) for name in names]
    return [
        index
        for index, value in enumerate(values)
        if value is None or (isinstance(value, str) and (not value or value.isspace()))
    ]


def normalized_column(name: str) -> str:
    """A column's name as names are compared: stripped and in lower case."""
    return name.strip().lower()


def _by_normalized_column(raw_row: Mapping[str, Any]) -> dict[str, Any]:
    row = {normalized_column(name): value for name, value in raw_row.items()}
    if len(row) < len(raw_row):
        raise InvalidDatasetError(
            f"two columns have the same name, leaving case and outer spaces aside: {repeated_column(raw_row)}"
        )
    return row


def repeated_column(names: Collection[str]) -> str:
    """The first name in `names` that came before, for an error message; "none" if all differ."""
    seen: set[str] = set()
    for name in names:
        if normalized_column(name) in seen:
            return shown(name)
        seen.add(normalized_column(name))
    return "none"


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise InvalidDatasetError(f"column '{column}' is missing; the row has {listed(row)}")
    return row[column]


def _filled_string(row: Mapping[str, Any], column: str) -> str:
    return _filled(_string(_value(row, column), f"column '{column}'"), f"column '{column}'")


def _optional_string(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None else _string(value, f"column '{column}'")


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidDatasetError(f"{what} must be a string, got {kind_of(value)}")
    # JSON can escape half of a surrogate pair, which no UTF-8 file and no tokenizer can hold.
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(value[error.start]):04x}"
        raise InvalidDatasetError(f"{what} has half of a surrogate pair, {code}, which is not a character") from error
    return value


def _filled(value: str, what: str) -> str:
    if not value or value.isspace():
        raise InvalidDatasetError(f"{what} must not be blank; fill it in or remove the row")
    return value


def _chat(value: object) -> tuple[Message, ...]:
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
    messages = tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))
    _check_turns(messages)
    return messages


def _message(item: object, what: str) -> Message:
    if not isinstance(item, dict):
        raise InvalidDatasetError(f"{what} must be an object with role and content, got {kind_of(item)}")
    for key in ("role", "content"):
        if key not in item:
            raise InvalidDatasetError(f"{what} has no '{key}'; it has {listed(item)}")
    role = _role(item["role"], f"{what}.role")
    content = _string(item["content"], f"{what}.content")
    # An empty system message has a meaning: it keeps a chat template from adding its own.
    return Message(role, content if role is Role.SYSTEM else _filled(content, f"{what}.content"))


def _role(value: object, what: str) -> Role:
    text = _string(value, what)
    try:
        return Role(text)
    except ValueError as error:
        raise InvalidDatasetError(f"{what} must be one of {', '.join(Role)}, got {shown(text)}") from error


def _check_turns(messages: Sequence[Message]) -> None:
    first_turn = 1 if messages[0].role is Role.SYSTEM else 0
    for index, message in enumerate(messages[first_turn:], first_turn):
        expected = Role.USER if (index - first_turn) % 2 == 0 else Role.ASSISTANT
        if message.role is Role.SYSTEM:
            raise InvalidDatasetError(f"messages[{index}].role is system, which may only come first")
        if message.role is not expected:
            raise InvalidDatasetError(
                f"messages[{index}].role must be {expected}, got {message.role}; "
                "after an optional system message, user and assistant take turns and user begins"
            )
    if messages[-1].role is not Role.ASSISTANT:
        raise InvalidDatasetError(f"the last message must be the assistant's, got {messages[-1].role}")
