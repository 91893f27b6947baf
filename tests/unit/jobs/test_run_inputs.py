from __future__ import annotations

import pytest

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.weights import WeightedDataset
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.jobs.run_inputs import JobDatasets, run_of
from sienn_ray.training.spec import MixedDataset
from sienn_ray.training.timeline import Timeline
from tests.support.fakes_jobs import dataset_record, job_record

A, B, V = dataset_record("a", version=3), dataset_record("b", format="chat"), dataset_record("v")


def mixture(*weights: float) -> tuple[WeightedDataset, ...]:
    return tuple(WeightedDataset(dataset_id=name, weight=weight) for name, weight in zip("ab", weights, strict=False))


def test_one_dataset_is_read_as_it_is() -> None:
    run = run_of(job_record(dataset_id="a"), JobDatasets((A,), V), Timeline(0.0))
    assert (run.rows_key, run.validation_rows_key) == ("datasets/a/rows.parquet", "datasets/v/rows.parquet")
    assert run.mixture == ()
    assert [(fact.role, fact.id, fact.version, fact.weight) for fact in run.datasets] == [
        ("train", "a", 3, None),
        ("evaluation", "v", 1, None),
    ]


def test_a_mixture_is_read_by_weight_and_its_statistics_are_those_of_each() -> None:
    run = run_of(job_record(dataset_id="a", datasets=mixture(1, 0.5)), JobDatasets((A, B)), Timeline(0.0))
    assert run.row_kind is RowKind.CONVERSATION
    assert run.mixture == (
        MixedDataset("a", "datasets/a/rows.parquet", 1.0),
        MixedDataset("b", "datasets/b/rows.parquet", 0.5),
    )
    assert [(fact.id, fact.weight) for fact in run.datasets] == [("a", 1.0), ("b", 0.5)]
    assert [request.dataset_id for request in run.statistics] == ["a", "b"]


def test_one_dataset_with_a_weight_is_a_mixture() -> None:
    run = run_of(job_record(dataset_id="a", datasets=mixture(2)), JobDatasets((A,)), Timeline(0.0))
    assert [each.weight for each in run.mixture] == [2.0]


def test_other_kinds_of_rows_are_refused() -> None:
    texts = dataset_record("b", format="text")
    with pytest.raises(InvalidDatasetError, match="conversations and plain text can't be mixed"):
        run_of(job_record(dataset_id="a", datasets=mixture(1, 1)), JobDatasets((A, texts)), Timeline(0.0))
