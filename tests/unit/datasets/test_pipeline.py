from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.pipeline import ALL_ROWS, RowSelection, check_room, held_out_rows, tokenize_batch
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.schema import PARQUET_SCHEMA
from sienn_ray.errors import InvalidDatasetError

LONG = "word " * 400


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def table_of(prompts: list[str]) -> pa.Table:
    rows = [
        {
            "row": number,
            "line": number + 1,
            "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"answer {number}"}],
            "text": None,
        }
        for number, prompt in enumerate(prompts)
    ]
    return pa.Table.from_pylist(rows, schema=PARQUET_SCHEMA)


def answers(tokenizer: Any, table: pa.Table, wanted: RowSelection = ALL_ROWS, max_length: int = 128) -> list[int]:
    """Numbers of the rows that are left."""
    tokenized = tokenize_batch(
        table,
        wanted=wanted,
        tokenizer=tokenizer,
        prompt_format=PromptFormat.for_chat(tokenizer),
        max_length=max_length,
    )
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokenized.column("input_ids").to_pylist()]
    return [int(text.split("answer ")[1].split()[0]) for text in texts]


class TestSelection:
    def test_all_rows_are_all(self) -> None:
        assert 0 in ALL_ROWS
        assert 10**9 in ALL_ROWS

    def test_the_two_parts_of_a_split_are_the_whole(self) -> None:
        held_out = held_out_rows(50, 0.1, seed=1)
        training, evaluation = RowSelection(held_out), RowSelection(held_out, is_inverted=False)
        assert all((row in training) is not (row in evaluation) for row in range(50))
        assert sum(row in evaluation for row in range(50)) == 5

    def test_rows_go_where_they_are_wanted(self, tokenizer: Any) -> None:
        table, some = table_of([f"question {number}" for number in range(6)]), frozenset({1, 4})
        assert answers(tokenizer, table) == [0, 1, 2, 3, 4, 5]
        assert answers(tokenizer, table, RowSelection(some)) == [0, 2, 3, 5]
        assert answers(tokenizer, table, RowSelection(some, is_inverted=False)) == [1, 4]


class TestHeldOut:
    @pytest.mark.parametrize(
        ("num_rows", "split", "count"),
        [(100, 0.1, 10), (2, 0.1, 1), (2, 0.5, 1), (3, 0.5, 2), (1, 0.5, 0), (0, 0.5, 0), (1000, 0.0, 0), (7, 0.01, 1)],
    )
    def test_count(self, num_rows: int, split: float, count: int) -> None:
        held_out = held_out_rows(num_rows, split, seed=42)
        assert len(held_out) == count
        assert all(0 <= row < num_rows for row in held_out)

    def test_the_seed_chooses(self) -> None:
        assert held_out_rows(100, 0.2, seed=1) == held_out_rows(100, 0.2, seed=1) != held_out_rows(100, 0.2, seed=2)


class TestRoom:
    def test_rows_without_room_for_an_answer_are_left_out(self, tokenizer: Any) -> None:
        assert answers(tokenizer, table_of(["short", LONG, "short too"])) == [0, 2]
        assert answers(tokenizer, table_of([LONG])) == []

    @pytest.mark.parametrize("name", ["dataset", "validation dataset"])
    def test_a_dataset_of_which_nothing_is_left_is_refused_by_name(self, name: str) -> None:
        check_room(1, name, 128)
        with pytest.raises(InvalidDatasetError) as error:
            check_room(0, name, 128)
        assert error.value.message == (
            f"no row of the {name} has room for its answer: every prompt fills max_length=128 tokens; raise max_length "
            "(up to 2048) or shorten the prompts"
        )
