from __future__ import annotations

import pytest

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.steps import StepPlan


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "num_workers", "rows_per_worker", "micro_batch_rows"),
    [
        (4, 1, 1, 4, 4),
        (4, 1, 2, 2, 2),
        (4, 2, 1, 8, 4),
        (4, 2, 2, 4, 2),
        (4, 1, 3, 1, 1),
        (4, 3, 3, 4, 1),
        (5, 2, 2, 5, 2),
        (1, 4, 4, 1, 1),
        (1, 1, 4, 1, 1),
        (32, 64, 64, 32, 1),
    ],
)
def test_rows(
    batch_size: int, accumulation: int, num_workers: int, rows_per_worker: int, micro_batch_rows: int
) -> None:
    plan = StepPlan.of(
        TrainingConfig(base_model="m", batch_size=batch_size, gradient_accumulation_steps=accumulation), num_workers
    )
    assert plan.rows_per_worker == rows_per_worker
    assert plan.micro_batch_rows == micro_batch_rows
    assert plan.rows_per_step == rows_per_worker * num_workers


@pytest.mark.parametrize(
    ("num_rows", "accumulation", "num_workers", "steps"),
    [(10, 1, 1, 3), (8, 1, 1, 2), (8, 1, 2, 2), (9, 1, 2, 2), (3, 8, 1, 1), (17, 2, 1, 3), (17, 2, 2, 2), (1, 1, 1, 1)],
)
def test_steps_of_an_epoch(num_rows: int, accumulation: int, num_workers: int, steps: int) -> None:
    assert StepPlan(4, accumulation, num_workers).steps_per_epoch(num_rows) == steps


@pytest.mark.parametrize(
    ("num_rows", "num_workers", "batches"), [(0, 1, 0), (1, 2, 1), (4, 1, 1), (5, 1, 2), (9, 2, 3)]
)
def test_no_row_of_an_evaluation_is_left_out(num_rows: int, num_workers: int, batches: int) -> None:
    assert StepPlan(4, 1, num_workers).eval_batches(num_rows) == batches
