"""The rows of a run over several datasets, as its program divides and counts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, RowKind
from sienn_ray.storage import Storage
from sienn_ray.training import trainer
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.spec import MixedDataset, Run, RunRows

SIZES = {"a": 20, "b": 10, "c": 10}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(f"file://{tmp_path}")
    for name, size in SIZES.items():
        with storage.writing(dataset_keys.rows_key(name)) as file, RowWriter(file) as writer:
            for number in range(size):
                writer.add(CanonicalRow(text=f"{name}{number}"), number + 1, [])
    return storage


def run_of(*weights: float, validation_rows_key: str | None = None) -> Run:
    names = list(SIZES)[: len(weights)]
    pairs = zip(names, weights, strict=True)
    return Run(
        "job",
        TrainingConfig(base_model="m", batch_size=4, validation_split=0.2),
        RowKind.TEXT,
        dataset_keys.rows_key(names[0]),
        "adapters/job",
        validation_rows_key=validation_rows_key,
        mixture=tuple(MixedDataset(name, dataset_keys.rows_key(name), weight) for name, weight in pairs),
    )


def rows_of(run: Run, storage: Storage) -> RunRows:
    return trainer._rows(run, storage)


def test_each_dataset_has_its_share_held_out_whatever_its_weight(storage: Storage) -> None:
    run = run_of(1, 2.5)
    rows = rows_of(run, storage)
    assert rows.num_eval == 4 + 2
    assert rows.num_train == 16 + 2 * 8 + 4
    assert trainer._rows_per_epoch(run, rows) == {"a": 16, "b": 20}


def test_rows_that_were_seen_are_counted_to_the_step(storage: Storage) -> None:
    run = run_of(1, 0.5)
    rows = rows_of(run, storage)
    assert trainer._rows_seen(run, rows, 0) == {"a": 0, "b": 0}
    assert trainer._rows_seen(run, rows, 5) == {"a": 16, "b": 4}
    assert trainer._rows_seen(run, rows, 15) == {"a": 48, "b": 12}
    half = trainer._rows_seen(run, rows, 7)
    assert half is not None
    assert sum(half.values()) == 20 + 8


def test_a_validation_dataset_leaves_all_rows_to_train_on(storage: Storage) -> None:
    rows = rows_of(run_of(1, 1, validation_rows_key=dataset_keys.rows_key("c")), storage)
    assert (rows.num_train, rows.num_eval) == (30, 10)


def test_a_run_over_one_dataset_counts_nothing_by_dataset(storage: Storage) -> None:
    run = Run("job", TrainingConfig(base_model="m"), RowKind.TEXT, dataset_keys.rows_key("a"), "adapters/job")
    rows = rows_of(run, storage)
    assert (trainer._rows_per_epoch(run, rows), trainer._rows_seen(run, rows, 3)) == (None, None)
