"""What Ray Data's workers do with a piece of a dataset; the whole is tested on a real cluster."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets import dataset_keys, intake
from sienn_ray.datasets.measure import measure_row
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.statistics import SliceMeasure
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.storage import Storage

ROWS = [{"prompt": f"What is {number % 7}?", "completion": f"It is {number}.", "note": ""} for number in range(450)]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture
def measure(tmp_path: Path, tokenizer: Any) -> SliceMeasure:
    storage = Storage(f"file://{tmp_path}")
    content = "\n".join(json.dumps(row) for row in ROWS).encode()
    intake.take(storage, "d", "d.jsonl", io.BytesIO(content), max_row_bytes=1_000)
    return SliceMeasure(
        path=storage.path(dataset_keys.rows_key("d")),
        filesystem=storage.arrow_filesystem(),
        tokenizer=tokenizer,
        prompt_format=PromptFormat.for_chat(tokenizer),
        max_length=64,
    )


def measured(measure: SliceMeasure, slices: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    names = ("group", "start", "num_rows")
    table = pa.Table.from_pylist([dict(zip(names, values, strict=True)) for values in slices])
    return [row for batch in measure(table) for row in batch.to_pylist()]


def test_every_row_of_the_slices_is_measured(measure: SliceMeasure, tokenizer: Any) -> None:
    rows = measured(measure, [(0, 400, 1_000), (0, 0, 3)])
    assert [row["row"] for row in rows] == [*range(400, 450), 0, 1, 2]
    for row in rows:
        source = ROWS[row["row"]]
        expected = measure_row(
            tokenizer,
            measure.prompt_format,
            StoredRow(
                [
                    {"role": "user", "content": source["prompt"]},
                    {"role": "assistant", "content": source["completion"]},
                ],
                None,
            ),
            max_length=64,
        )
        assert row == {
            "row": row["row"],
            "line": row["row"] + 1,
            "empty_columns": [2],
            "num_chars": expected.num_chars,
            "num_prompt_tokens": expected.num_prompt_tokens,
            "num_completion_tokens": expected.num_completion_tokens,
            "is_dropped": expected.is_dropped,
            "hash_high": int.from_bytes(expected.hash[:8], "little"),
            "hash_low": int.from_bytes(expected.hash[8:], "little"),
        }


def test_datasets_of_earlier_versions_can_be_measured(measure: SliceMeasure) -> None:
    table = pq.read_table(measure.path).drop(
        ["empty_columns", "rejected", "rejected_extra", "tools", "label", "chat_template_kwargs"]
    )
    pq.write_table(table, measure.path)
    rows = measured(measure, [(0, 0, 5)])
    assert len(rows) == 5
    assert "empty_columns" not in rows[0]


def test_both_answers_of_a_preference_row_are_measured(measure: SliceMeasure, tokenizer: Any) -> None:
    table = pq.read_table(measure.path)
    pq.write_table(table.set_column(5, "rejected", pa.array(["No idea. " * 5] * len(table))), measure.path)
    (row,) = measured(measure, [(0, 0, 1)])
    messages = [{"role": "user", "content": ROWS[0]["prompt"]}, {"role": "assistant", "content": "It is 0."}]
    expected = measure_row(
        tokenizer,
        measure.prompt_format,
        StoredRow(messages, None, rejected={"role": "assistant", "content": "No idea. " * 5}),
        max_length=64,
    )
    assert row["num_completion_tokens"] == expected.num_completion_tokens > 10
    assert row["hash_low"] == int.from_bytes(expected.hash[8:], "little")


def test_it_pickles(measure: SliceMeasure) -> None:
    assert measured(pickle.loads(pickle.dumps(measure)), [(0, 7, 1)]) == measured(measure, [(0, 7, 1)])
