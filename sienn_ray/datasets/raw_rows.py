"""Stored rows as lines of a JSONL file that holds the same rows, whatever file they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_JSON_COLUMNS = ("tools", "chat_template_kwargs")


def stored_rows(parquet: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """Read all rows of a dataset, one row group in memory at a time; columns that it lacks are missing."""
    for number in range(parquet.metadata.num_row_groups):
        yield from parquet.read_row_group(number, use_threads=False).to_pylist()


def raw_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored row in the form that an upload takes: messages as OpenAI has them, or a text.

    Example:
        >>> raw_row({"messages": None, "text": "Once upon a time"})
        {'text': 'Once upon a time'}
    """
    if row["messages"] is None:
        return {"text": row["text"]}
    messages = [_message(message, message.get("extra")) for message in row["messages"]]
    beside = {name: json.loads(row[name]) for name in _JSON_COLUMNS if row.get(name) is not None}
    if row.get("label") is not None:
        beside["label"] = row["label"]
    if row.get("rejected") is None:
        return {"messages": messages, **beside}
    rejected = _message({"role": "assistant", "content": row["rejected"]}, row.get("rejected_extra"))
    return {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": [rejected], **beside}


def raw_line(row: Mapping[str, Any]) -> bytes:
    """Return a stored row as a line of JSONL."""
    return json.dumps(raw_row(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def as_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; what a dataset of an earlier version lacks is null."""
    return pa.Table.from_pylist(rows, schema=schema)


def _message(message: Mapping[str, Any], extra: str | None) -> dict[str, Any]:
    said = {"role": message["role"], "content": message["content"]}
    return said if extra is None else {**said, **json.loads(extra)}
