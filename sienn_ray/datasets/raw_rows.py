"""Stored rows as lines of a JSONL file that holds the same rows, whatever file they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sienn_ray.datasets.stored_rows import StoredRow


def stored_rows(parquet: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """Read all rows of a dataset, one row group in memory at a time; columns that it lacks are missing."""
    for number in range(parquet.metadata.num_row_groups):
        yield from parquet.read_row_group(number, use_threads=False).to_pylist()


def raw_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored row in the form that an upload takes: messages as OpenAI has them, or a text.

    Example:
        >>> raw_row({"messages": None, "text": "Once upon a time"})
        {'text': 'Once upon a time'}
    """
    row = StoredRow.of(values)
    if row.messages is None:
        return {"text": row.text}
    given = {"tools": row.tools, "label": row.label, "chat_template_kwargs": row.chat_template_kwargs}
    beside = {name: value for name, value in given.items() if value is not None}
    if row.rejected is None:
        return {"messages": row.messages, **beside}
    return {"prompt": row.messages[:-1], "chosen": row.messages[-1:], "rejected": [row.rejected], **beside}


def raw_line(values: Mapping[str, Any]) -> bytes:
    """Return a stored row as a line of JSONL."""
    return json.dumps(raw_row(values), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def as_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; what a dataset of an earlier version lacks is null."""
    return pa.Table.from_pylist(rows, schema=schema)
