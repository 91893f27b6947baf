"""Datasets joined to one, whose file makes the same rows when it is uploaded again."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets import dataset_keys, intake
from sienn_ray.datasets.ingest import MAX_ROW_BYTES
from sienn_ray.datasets.intake import AbandonedError
from sienn_ray.datasets.joining import join
from sienn_ray.datasets.row_writer import MAX_ROW_GROUP_BYTES
from sienn_ray.datasets.schema import RowKind, row_kind
from sienn_ray.errors import InvalidInputError
from sienn_ray.storage import Storage

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PLAIN = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello — “ünï”\n"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "alpaca": [{"instruction": "Add", "input": "1 2", "output": "3"}],
    "chat": [
        {"messages": [{"role": "system", "content": "Be brief."}, *PLAIN, *PLAIN]},
        {"messages": [*PLAIN[:1], {"role": "assistant", "content": "no", "weight": 0}, *PLAIN]},
        {"messages": [*PLAIN[:1], {"role": "assistant", "content": "yes", "reasoning_content": "Why not?"}]},
        {
            "messages": [
                *PLAIN[:1],
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "7", "tool_call_id": "c1"},
                {"role": "assistant", "content": "It is 7."},
            ],
            "tools": TOOLS,
        },
    ],
    "variables": [{"messages": PLAIN, "chat_template_kwargs": {"enable_thinking": False}}],
    "labelled answers": [{"messages": PLAIN, "label": True}, {"messages": PLAIN, "label": False}],
    "text": [{"text": "Once\nupon a time "}],
    "preference": [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": PLAIN[:1], "chosen": PLAIN[1:], "rejected": [{"role": "assistant", "content": "no"}]},
    ],
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}")


def take(storage: Storage, dataset_id: str, rows: list[dict[str, Any]]) -> RowKind:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    taken = intake.take(storage, dataset_id, "rows.jsonl", io.BytesIO(content), max_row_bytes=MAX_ROW_BYTES)
    return row_kind(taken.report.format)


def rows_of(storage: Storage, dataset_id: str) -> list[dict[str, Any]]:
    """All that is stored of rows, but for where they were."""
    with storage.reading(dataset_keys.rows_key(dataset_id)) as file:
        rows = pq.read_table(file).to_pylist()
    return [{name: value for name, value in row.items() if name not in ("row", "line")} for row in rows]


@pytest.mark.parametrize("name", ROWS)
def test_file_of_the_joined_rows_makes_the_same_rows(storage: Storage, name: str) -> None:
    kind = take(storage, "a", ROWS[name])
    take(storage, "b", ROWS[name][::-1])
    taken = join(storage, "joined", ("a", "b"), kind)
    content = storage.read_bytes(dataset_keys.file_key("joined"))
    assert (len(content), taken.report.num_rows) == (taken.size_bytes, 2 * len(ROWS[name]))
    again = intake.take(storage, "again", "rows.jsonl", io.BytesIO(content), max_row_bytes=MAX_ROW_BYTES)
    assert again.sha256 == taken.sha256
    assert again.report.format == taken.report.format
    assert again.report.columns == taken.report.columns
    assert again.report.preview == taken.report.preview
    assert rows_of(storage, "again") == rows_of(storage, "joined")


def test_rows_of_an_earlier_version_lack_columns(storage: Storage) -> None:
    kind = take(storage, "a", ROWS["chat"][:1])
    path = storage.path(dataset_keys.rows_key("a"))
    pq.write_table(pq.read_table(path).select(["row", "line", "messages", "text"]), path)
    join(storage, "joined", ("a", "a"), kind)
    assert [len(row["messages"]) for row in rows_of(storage, "joined")] == [5, 5]


def test_row_groups_are_bounded(storage: Storage) -> None:
    text = "x" * (MAX_ROW_GROUP_BYTES // 4)
    kind = take(storage, "a", [{"text": text}] * 3)
    join(storage, "joined", ("a", "a", "a"), kind)
    with storage.reading(dataset_keys.rows_key("joined")) as file:
        metadata = pq.read_metadata(file)
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [4, 4, 1]


def test_too_many_bytes_end_it(storage: Storage) -> None:
    kind = take(storage, "a", ROWS["text"])

    def check_size(num_bytes: int) -> None:
        if num_bytes > 30:
            raise InvalidInputError("too much")

    with pytest.raises(InvalidInputError, match="too much"):
        join(storage, "joined", ("a", "a"), kind, check_size=check_size)


def test_nobody_waits_any_more(storage: Storage) -> None:
    kind, abandoned = take(storage, "a", ROWS["text"]), threading.Event()
    abandoned.set()
    with pytest.raises(AbandonedError):
        join(storage, "joined", ("a",), kind, abandoned=abandoned)
