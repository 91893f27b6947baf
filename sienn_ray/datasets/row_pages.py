"""Read a few of a dataset's rows out of its Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.schema import Message
from sienn_ray.datasets.stored_rows import CONTENT_COLUMNS, StoredRow, message_of
from sienn_ray.errors import ArtifactError
from sienn_ray.storage import Storage

MAX_STRING_CHARS = 2_000
MAX_MESSAGES = 50
# A tool's parameters can't be cut to something that is still one.
MAX_TOOLS_CHARS = 20_000
_COLUMNS = ("row", "line", *CONTENT_COLUMNS)


@dataclass(frozen=True)
class ShownRow:
    """One row, with long strings and long conversations cut.

    Args:
        row: 0-based number.
        line: Where it begins in the file, as `schema.PARQUET_SCHEMA` has it.
        messages: Turns of a conversation, or None.
        text: Plain text, or None.
        rejected: The answer that the last message is preferred to, or None.
        tools: Tools that the assistant may call, in OpenAI's form, or None.
        label: Whether the last message is a good answer, or None.
        chat_template_kwargs: Variables of the chat template, or None.
        is_truncated: Whether anything was cut.
    """

    row: int
    line: int
    messages: tuple[Message, ...] | None
    text: str | None
    rejected: Message | None
    tools: list[dict[str, Any]] | None
    label: bool | None
    chat_template_kwargs: dict[str, Any] | None
    is_truncated: bool


@dataclass(frozen=True)
class RowPage:
    """Some rows in order, and how many there are in all."""

    rows: list[ShownRow]
    num_rows: int


def read_page(storage: Storage, dataset_id: str, *, offset: int, limit: int) -> RowPage:
    """Read rows `offset` to `offset + limit`, cut for being shown.

    Raises:
        ArtifactError: The rows are missing from storage, or altered.
    """
    rows, num_rows = read_values(storage, dataset_id, offset=offset, limit=limit)
    return RowPage([shown_row(row) for row in rows], num_rows)


def read_values(storage: Storage, dataset_id: str, *, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Read rows `offset` to `offset + limit` by column, and how many there are in all.

    Only the row groups that hold them are read.

    Raises:
        ArtifactError: The rows are missing from storage, or altered.
    """
    key = dataset_keys.rows_key(dataset_id)
    with storage.reading(key) as file:
        try:
            parquet = pq.ParquetFile(cast(Any, file))
            rows = list(_rows(parquet, offset, offset + limit))
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{storage.location(key)} can't be read ({error}); upload the file again") from error
        return rows, parquet.metadata.num_rows


def _rows(parquet: Any, start: int, end: int) -> Iterator[dict[str, Any]]:
    first = 0
    for index in range(parquet.metadata.num_row_groups):
        if first >= end:
            return
        size = parquet.metadata.row_group(index).num_rows
        if first + size > start:
            # Those that there are: pyarrow passes over others.
            group = parquet.read_row_group(index, columns=list(_COLUMNS), use_threads=False)
            begin = max(start - first, 0)
            yield from group.slice(begin, end - first - begin).to_pylist()
        first += size


def shown_row(values: dict[str, Any]) -> ShownRow:
    """Cut a stored row to what is shown of it."""
    row, cut = StoredRow.of(values), _Cut()
    return ShownRow(
        row=values["row"],
        line=values["line"],
        messages=None if row.messages is None else cut.messages(row.messages),
        text=None if row.text is None else cut.string(row.text),
        rejected=None if row.rejected is None else cut.message(row.rejected),
        tools=cut.json(row.tools),
        label=row.label,
        chat_template_kwargs=cut.json(row.chat_template_kwargs),
        is_truncated=cut.has_cut,
    )


class _Cut:
    """Cuts one row's values, and remembers whether it did."""

    def __init__(self) -> None:
        self.has_cut = False

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        self.has_cut |= len(messages) > MAX_MESSAGES
        return tuple(self.message(message) for message in messages[:MAX_MESSAGES])

    def message(self, said: Mapping[str, Any]) -> Message:
        message = message_of(said)
        reasoning = message.reasoning_content
        self.has_cut |= len(message.tool_calls) > MAX_MESSAGES
        return message._replace(
            content=self.string(message.content),
            reasoning_content=None if reasoning is None else self.string(reasoning),
            tool_calls=tuple(
                call._replace(name=self.string(call.name), arguments=self.string(call.arguments))
                for call in message.tool_calls[:MAX_MESSAGES]
            ),
        )

    def string(self, text: str) -> str:
        self.has_cut |= len(text) > MAX_STRING_CHARS
        return text[:MAX_STRING_CHARS]

    def json(self, value: Any) -> Any:
        """A value as it is, or none of it where it is too long."""
        is_long = value is not None and len(json.dumps(value, ensure_ascii=False)) > MAX_TOOLS_CHARS
        self.has_cut |= is_long
        return None if is_long else value
