"""Read a few of a dataset's rows out of its Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from sienn_ray.datasets import intake
from sienn_ray.datasets.schema import Message, Role
from sienn_ray.errors import ArtifactError
from sienn_ray.storage import Storage

MAX_STRING_CHARS = 2_000
MAX_MESSAGES = 50
_COLUMNS = ["row", "line", "messages", "text", "rejected"]


@dataclass(frozen=True)
class ShownRow:
    """One row, with long strings and long conversations cut.

    Args:
        row: 0-based number.
        line: Where it begins in the file, as `schema.PARQUET_SCHEMA` has it.
        messages: Turns of a conversation, or None.
        text: Plain text, or None.
        rejected: The answer that the last message is preferred to, or None.
        is_truncated: Whether anything was cut.
    """

    row: int
    line: int
    messages: tuple[Message, ...] | None
    text: str | None
    rejected: str | None
    is_truncated: bool


@dataclass(frozen=True)
class RowPage:
    """Some rows in order, and how many there are in all."""

    rows: list[ShownRow]
    num_rows: int


def read_page(storage: Storage, dataset_id: str, *, offset: int, limit: int) -> RowPage:
    """Read rows `offset` to `offset + limit`; only the row groups that hold them are read.

    Raises:
        ArtifactError: The rows are missing from storage, or altered.
    """
    key = intake.rows_key(dataset_id)
    with storage.reading(key) as file:
        try:
            parquet = pq.ParquetFile(cast(Any, file))
            rows = [shown_row(row) for row in _rows(parquet, offset, offset + limit)]
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{storage.location(key)} can't be read ({error}); upload the file again") from error
        return RowPage(rows, parquet.metadata.num_rows)


def _rows(parquet: Any, start: int, end: int) -> Iterator[dict[str, Any]]:
    first = 0
    for index in range(parquet.metadata.num_row_groups):
        if first >= end:
            return
        size = parquet.metadata.row_group(index).num_rows
        if first + size > start:
            group = parquet.read_row_group(index, columns=_COLUMNS, use_threads=False)
            begin = max(start - first, 0)
            yield from group.slice(begin, end - first - begin).to_pylist()
        first += size


def shown_row(row: dict[str, Any]) -> ShownRow:
    """Cut a stored row to what is shown of it."""
    messages, text = row["messages"], row["text"]
    rejected = row.get("rejected")  # datasets of earlier versions lack it
    strings = [text or "", rejected or "", *(message["content"] for message in (messages or ())[:MAX_MESSAGES])]
    return ShownRow(
        row=row["row"],
        line=row["line"],
        messages=None if messages is None else tuple(_message(message) for message in messages[:MAX_MESSAGES]),
        text=None if text is None else text[:MAX_STRING_CHARS],
        rejected=None if rejected is None else rejected[:MAX_STRING_CHARS],
        is_truncated=len(messages or ()) > MAX_MESSAGES or any(len(string) > MAX_STRING_CHARS for string in strings),
    )


def _message(message: dict[str, str]) -> Message:
    return Message(Role(message["role"]), message["content"][:MAX_STRING_CHARS])
