from __future__ import annotations

import pytest

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.steps import StepPlan


def plan_of(
    batch_size: int, accumulation: int, num_workers: int = 1, num_rows: int = 10, num_epochs: int = 3
) -> StepPlan:
    config = TrainingConfig(
        base_model="m", batch_size=batch_size, gradient_accumulation_steps=accumulation, num_epochs=num_epochs
    )
    return StepPlan.of(config, num_workers, num_rows)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "num_workers", "max_rows_per_worker", "micro_batch_rows"),
    [
        (4, 1, 1, 4, 4),
        (4, 1, 2, 2, 2),
        (4, 2, 1, 8, 4),
        (4, 2, 2, 4, 2),
        (4, 1, 3, 2, 2),
        (4, 3, 3, 4, 2),
        (5, 2, 2, 5, 3),
        (1, 4, 4, 1, 1),
        (1, 1, 4, 1, 1),
        (32, 64, 64, 32, 1),
    ],
)
def test_rows_of_a_worker(
    batch_size: int, accumulation: int, num_workers: int, max_rows_per_worker: int, micro_batch_rows: int
) -> None:
    plan = plan_of(batch_size, accumulation, num_workers)
    assert plan.max_rows_per_worker == max_rows_per_worker
    assert plan.micro_batch_rows == micro_batch_rows


@pytest.mark.parametrize("num_workers", [1, 2, 3, 8, 64])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (4, 1), (4, 8), (5, 3)])
def test_steps_are_the_same_on_however_many_workers(batch_size: int, accumulation: int, num_workers: int) -> None:
    plan, alone = plan_of(batch_size, accumulation, num_workers), plan_of(batch_size, accumulation)
    assert plan.rows_per_step == alone.rows_per_step == batch_size * accumulation
    assert plan.num_steps == alone.num_steps
    assert plan.max_rows_per_worker * num_workers >= plan.rows_per_step


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "accumulation", "steps"),
    [(10, 4, 1, 3), (8, 4, 1, 2), (9, 4, 1, 3), (3, 4, 8, 1), (17, 4, 2, 3), (16, 4, 2, 2), (1, 4, 1, 1), (0, 4, 1, 0)],
)
def test_steps_of_an_epoch(num_rows: int, batch_size: int, accumulation: int, steps: int) -> None:
    plan = plan_of(batch_size, accumulation, num_rows=num_rows, num_epochs=5)
    assert plan.steps_per_epoch == steps
    assert plan.num_steps == 5 * steps


def test_where_epochs_begin_and_end() -> None:
    plan = plan_of(4, 1, num_rows=10, num_epochs=3)
    assert [plan.epoch_of(step) for step in range(plan.num_steps)] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [done for done in range(1, plan.num_steps + 1) if plan.ends_epoch(done)] == [3, 6, 9]
