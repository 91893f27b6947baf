"""Rows of several files in one order, tokenized in this process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.mixed_rows import MixedRows
from sienn_ray.datasets.mixture_order import MixtureOrder
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.row_order import NO_ROWS, RowOrder, held_out_rows
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow
from sienn_ray.datasets.token_stream import Share, StoredRows, TokenStream
from sienn_ray.storage import Storage

SIZES = {"a": 23, "b": 7, "c": 4}
SEED = 7


@dataclass(frozen=True)
class InProcess(TokenStream):
    """A stream whose parts are tokenized where they are wanted."""

    def _blocks(self, share: Share, first_step: int, num_steps: int) -> Iterator[pa.Table]:
        for part in self._parts(share, first_step, num_steps):
            yield self.tokenize(part, share)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture
def mixed(tmp_path: Path) -> MixedRows:
    """Three datasets with row groups of five rows; texts are "a0", "a1", and so on."""
    storage = Storage(f"file://{tmp_path}")
    for name, size in SIZES.items():
        with storage.writing(dataset_keys.rows_key(name)) as file, RowWriter(file) as writer:
            for number in range(size):
                writer.add(CanonicalRow(text=f"{name}{number}"), number + 1, [])
        path = storage.path(dataset_keys.rows_key(name))
        pq.write_table(pq.read_table(path), path, row_group_size=5)
    return MixedRows(tuple(StoredRows(storage, dataset_keys.rows_key(name)) for name in SIZES))


def texts_of(mixed: MixedRows, order: MixtureOrder, epoch: int) -> list[str]:
    tables = (mixed.take(order.groups_of(part), order.rows(part)) for part in order.parts(epoch))
    return [row["text"] for table in tables for row in table.to_pylist()]


class TestRows:
    def test_groups_are_numbered_one_dataset_behind_the_other(self, mixed: MixedRows) -> None:
        firsts = [(group.first_row, group.num_rows) for group in mixed.groups]
        assert firsts == [(0, 5), (5, 5), (10, 5), (15, 5), (20, 3), (23, 5), (28, 2), (30, 4)]
        assert mixed.num_rows == 34

    def test_rows_come_in_the_order_asked_for_and_as_often(self, mixed: MixedRows) -> None:
        rows = np.array([33, 0, 24, 0, 22, 24])
        table = mixed.take((0, 4, 5, 7), rows)
        assert [row["text"] for row in table.to_pylist()] == ["c3", "a0", "b1", "a0", "a22", "b1"]

    def test_no_rows_are_an_empty_table(self, mixed: MixedRows) -> None:
        assert mixed.take((0, 5), NO_ROWS).num_rows == 0

    def test_datasets_of_earlier_versions_lack_columns(self, mixed: MixedRows) -> None:
        path = mixed.members[1].storage.path(mixed.members[1].key)
        pq.write_table(pq.read_table(path).select(["row", "line", "messages", "text"]), path, row_group_size=5)
        table = MixedRows(mixed.members).take((0, 5), np.array([23, 1]))
        assert [(row["text"], row["rejected"]) for row in table.to_pylist()] == [("b0", None), ("a1", None)]

    def test_each_dataset_has_its_share_held_out(self, mixed: MixedRows) -> None:
        held_out = mixed.held_out(0.25, SEED)
        assert held_out[:6].tolist() == held_out_rows(23, 0.25, SEED).tolist()
        assert len(held_out) == 6 + 2 + 1
        assert np.all(np.diff(held_out) > 0)
        assert mixed.held_out(0.0, SEED).tolist() == []


class TestMixture:
    def test_an_epoch_has_rows_by_weight(self, mixed: MixedRows) -> None:
        order = MixtureOrder(mixed.portions([1, 2, 0.5]), SEED)
        texts = texts_of(mixed, order, 1)
        assert {name: sum(text[0] == name for text in texts) for name in SIZES} == {"a": 23, "b": 14, "c": 2}
        assert sorted(set(texts)) == sorted([f"a{n}" for n in range(23)] + [f"b{n}" for n in range(7)]
                                            + [text for text in set(texts) if text[0] == "c"])  # fmt: skip

    def test_held_out_rows_are_evaluated_on_and_never_trained_on(self, mixed: MixedRows) -> None:
        held_out = mixed.held_out(0.25, SEED)
        order = MixtureOrder(mixed.portions([1, 2, 1]), SEED, held_out)
        trained = set(texts_of(mixed, order, 1))
        evaluation = RowOrder.of(mixed.groups, None, held_out, is_inverted=True)
        evaluated = [
            row["text"]
            for part in evaluation.parts(1)
            for row in mixed.take(evaluation.groups_of(part), evaluation.rows(part)).to_pylist()
        ]
        assert len(evaluated) == len(set(evaluated)) == len(held_out)
        assert trained.isdisjoint(evaluated)
        assert len(trained) + len(evaluated) == 34


class TestStream:
    def stream(self, mixed: MixedRows, tokenizer: Any) -> InProcess:
        order = MixtureOrder(mixed.portions([1, 2.5, 0.5]), SEED)
        return InProcess(mixed, order, tokenizer, PromptFormat.for_text(), 64)

    def test_a_run_resumes_at_any_step_with_the_same_rows(self, mixed: MixedRows, tokenizer: Any) -> None:
        stream, share = self.stream(mixed, tokenizer), Share(6)
        num_steps = 3 * share.steps_per_epoch(stream.order.num_rows)
        whole = list(stream.steps(share, first_step=0, num_steps=num_steps))
        assert sum(len(rows) for _, rows in whole) == 3 * stream.order.num_rows
        for first_step in range(num_steps):
            assert list(stream.steps(share, first_step=first_step, num_steps=num_steps)) == whole[first_step:]

    def test_workers_share_the_same_steps(self, mixed: MixedRows, tokenizer: Any) -> None:
        stream = self.stream(mixed, tokenizer)
        num_steps = Share(6).steps_per_epoch(stream.order.num_rows)
        alone = [rows for _, rows in stream.steps(Share(6), first_step=0, num_steps=num_steps)]
        shared = [
            [rows for _, rows in stream.steps(Share(6, rank, 2), first_step=0, num_steps=num_steps)] for rank in (0, 1)
        ]
        for step, rows in enumerate(alone):
            assert sorted(shared[0][step] + shared[1][step]) == sorted(rows)

    def test_a_stream_goes_to_another_process(self, mixed: MixedRows, tokenizer: Any) -> None:
        stream, share = self.stream(mixed, tokenizer), Share(6)
        part = next(stream.order.parts(2))
        sent: InProcess = pickle.loads(pickle.dumps(stream))  # with all that was computed before
        assert sent.tokenize(part, share).equals(stream.tokenize(part, share))
