from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import job_curves
from sienn_ray.jobs.store.job_curves import MAX_POINTS, kept_places
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import job_metric_points
from sienn_ray.training.reporting import Phase, Progress, RunProgress
from tests.support.fakes_jobs import Clock, job_record, stored_job


@pytest.fixture
def running(store: Store) -> Store:
    """`job-1` runs its first attempt."""
    store.jobs.add(job_record())
    begin(store, 1)
    return store


def begin(store: Store, attempt: int) -> None:
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=attempt)
    store.jobs.note_start("job-1", attempt, f"sienn-job-1-{attempt}")


def step(store: Store, number: int, loss: float | None = 1.0, *, attempt: int = 1, tokens: int | None = None) -> None:
    """Report an optimizer step."""
    progress = Progress(
        Phase.TRAINING,
        f"step {number}",
        min(number, 100),
        current_epoch=1 + number // 10,
        current_step=number,
        current_loss=loss,
        learning_rate=1e-4,
        tokens_per_s=80.5,
        num_tokens=tokens,
        train_seconds=None if tokens is None else tokens / 10,
    )
    store.jobs.report("job-1", attempt, progress)


def losses(store: Store) -> dict[int, float | None]:
    return {point.step: point.loss for point in store.jobs.metric_points("job-1", MAX_POINTS)}


def counted(store: Store, name: str) -> float:
    return sum(sample.value for sample in store.metrics.samples() if sample.name == name)


# Points


def test_steps_make_a_curve(running: Store, clock: Clock) -> None:
    step(running, 4, 2.5)
    clock.advance(1)
    step(running, 12, 1.5)
    first, second = running.jobs.metric_points("job-1", 10)
    assert (first.step, first.epoch, first.loss, first.learning_rate, first.tokens_per_s) == (4, 1, 2.5, 1e-4, 80.5)
    assert (second.step, second.epoch, second.loss, second.eval_loss) == (12, 2, 1.5, None)
    assert (second.created_at, (second.created_at - first.created_at).total_seconds()) == (clock.now, 1)


def test_reports_without_steps_make_no_points(running: Store) -> None:
    for phase in (Phase.LOADING_DATA, Phase.LOADING_MODEL, Phase.EVALUATING):
        running.jobs.report("job-1", 1, Progress.of_phase(phase, "words"))
    assert running.jobs.metric_points("job-1", 10) == []


def test_evaluation_joins_the_point_of_its_step(running: Store) -> None:
    step(running, 5, 2.0)
    named = Progress(Phase.EVALUATING, "evaluated", 20, current_step=5, current_epoch=1, eval_loss=1.75)
    running.jobs.report("job-1", 1, named)
    (point,) = running.jobs.metric_points("job-1", 10)
    assert (point.step, point.loss, point.eval_loss, point.learning_rate) == (5, 2.0, 1.75, 1e-4)


def test_evaluation_that_names_no_step_is_of_the_last_one(running: Store) -> None:
    running.jobs.report("job-1", 1, Progress(Phase.EVALUATING, "before the first epoch", 5, eval_loss=3.0))
    step(running, 5, 2.0)
    running.jobs.report("job-1", 1, Progress(Phase.EVALUATING, "after it", 20, eval_loss=1.75))
    points = running.jobs.metric_points("job-1", 10)
    assert [(point.step, point.epoch, point.loss, point.eval_loss) for point in points] == [
        (0, 0, None, 3.0),
        (5, 1, 2.0, 1.75),
    ]


def test_rewards_of_a_step_and_of_its_evaluation_share_a_point(running: Store) -> None:
    known: dict[str, Any] = {"current_step": 5, "current_epoch": 1}
    stepped: dict[str, Any] = {"rewards_chosen": 0.25, "rewards_margins": 0.5, "rewards_accuracies": 0.75}
    evaluated: dict[str, Any] = {"eval_rewards_margins": 0.125, "eval_rewards_accuracies": 1.0}
    running.jobs.report("job-1", 1, Progress(Phase.TRAINING, "step", 10, current_loss=0.5, **known, **stepped))
    running.jobs.report("job-1", 1, Progress(Phase.EVALUATING, "done", 20, eval_loss=0.25, **known, **evaluated))
    (point,) = running.jobs.metric_points("job-1", 10)
    assert point.model_dump(include=stepped.keys() | evaluated.keys()) == {**stepped, **evaluated}
    assert point.rewards_rejected is None
    assert stored_job(running).run.eval_rewards_margins == 0.125


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_loss_that_is_no_number_is_none(running: Store, loss: float) -> None:
    step(running, 1, loss)
    assert losses(running) == {1: None}
    kept = stored_job(running).run.current_loss
    assert kept is not None
    assert math.isnan(kept)


def test_same_step_again_takes_the_later_word(running: Store) -> None:
    step(running, 1, 2.0)
    step(running, 1, 1.0)
    assert losses(running) == {1: 1.0}


# Reports that come late, and attempts that go over steps again


def test_overtaken_report_adds_its_point_and_changes_nothing_else(running: Store) -> None:
    step(running, 10, 1.0, tokens=100)
    before = stored_job(running)
    step(running, 9, 1.1, tokens=90)
    assert stored_job(running) == before
    assert losses(running) == {9: 1.1, 10: 1.0}
    step(running, 11, 0.9, tokens=110)
    assert stored_job(running).run.current_step == 11
    assert counted(running, "sienn_training_tokens_total") == 110


def test_overtaken_evaluation_is_told_all_the_same(running: Store) -> None:
    step(running, 10)
    running.jobs.report("job-1", 1, Progress(Phase.EVALUATING, "evaluated", 20, current_step=8, eval_loss=1.5))
    assert running.jobs.events("job-1", 0, 100)[-1].data == {"eval_loss": 1.5, "epoch": 2, "step": 8}
    assert [point.eval_loss for point in running.jobs.metric_points("job-1", 9)] == [1.5, None]


def test_resumed_attempt_replaces_what_it_goes_over_again(running: Store) -> None:
    for number in (2, 4, 6, 8):
        step(running, number, 1.0)
    running.jobs.requeue("job-1", 1, "lost")
    begin(running, 2)
    step(running, 5, 0.5, attempt=2)
    assert losses(running) == {2: 1.0, 4: 1.0, 5: 0.5}
    step(running, 7, 0.4, attempt=2)
    assert losses(running) == {2: 1.0, 4: 1.0, 5: 0.5, 7: 0.4}
    assert stored_job(running).run.current_step == 7
    step(running, 9, 1.0, attempt=1)
    assert losses(running) == {2: 1.0, 4: 1.0, 5: 0.5, 7: 0.4}, "the lost attempt has no say"


# What training counts


def test_only_rises_are_counted(running: Store) -> None:
    for number, tokens in [(1, 100), (2, 250), (2, 250), (3, 240), (4, 300)]:
        step(running, number, tokens=tokens)
    assert counted(running, "sienn_training_tokens_total") == 100 + 150 + 0 + 60
    assert counted(running, "sienn_training_seconds_total") == pytest.approx(31)


def test_attempts_and_jobs_add_up(running: Store) -> None:
    step(running, 1, tokens=100)
    running.jobs.requeue("job-1", 1, "lost")
    begin(running, 2)
    step(running, 1, tokens=60, attempt=2)  # from its checkpoint
    step(running, 2, tokens=160, attempt=2)
    running.jobs.update("job-1", status=JobStatus.FAILED)
    running.jobs.retry("job-1")
    begin(running, 3)
    step(running, 2, tokens=160, attempt=3)
    running.jobs.update("job-1", status=JobStatus.COMPLETED, run=RunProgress(num_tokens=170, train_seconds=17.0))
    assert counted(running, "sienn_training_tokens_total") == 100 + 100 + 10
    running.jobs.add(job_record("job-2", status=JobStatus.RUNNING, attempt=1))
    running.jobs.update("job-2", run=RunProgress(num_tokens=5))
    assert counted(running, "sienn_training_tokens_total") == 215


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -5])
def test_what_is_no_number_is_not_counted(running: Store, value: Any) -> None:
    running.jobs.update("job-1", run=RunProgress(num_tokens=value))
    assert counted(running, "sienn_training_tokens_total") == 0


# Thinning


def test_number_of_points_is_bounded(running: Store, clock: Clock) -> None:
    evaluations = {1000: 0.5, 3001: 0.4}
    same = {"job_id": "job-1", "attempt": 1, "epoch": 1, "created_at": clock.now}
    full = [
        {**same, "step": number, "loss": float(number), "eval_loss": evaluations.get(number)}
        for number in range(1, MAX_POINTS + 1)
    ]
    one_more = Progress(Phase.TRAINING, "", 1, current_loss=float(MAX_POINTS + 1))
    with running.database.writing() as connection:
        connection.execute(sa.insert(job_metric_points), full)
        job_curves.add(connection, "job-1", 1, MAX_POINTS + 1, 1, one_more, clock.now)
    points = running.jobs.metric_points("job-1", MAX_POINTS)
    assert MAX_POINTS // 2 <= len(points) <= MAX_POINTS // 2 + 5
    assert (points[0].step, points[-1].step) == (1, MAX_POINTS + 1)
    assert {point.step: point.eval_loss for point in points if point.eval_loss} == evaluations
    assert max(later.step - earlier.step for earlier, later in itertools.pairwise(points)) <= 3
    assert all(point.loss == point.step for point in points)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 10, 101, 5000])
@pytest.mark.parametrize("max_points", [0, 1, 2, 3, 7, 100, 4999])
@pytest.mark.parametrize("every", [0, 1, 2, 50])
def test_thinned_curve_keeps_its_ends_and_its_bound(number: int, max_points: int, every: int) -> None:
    is_evaluation = [bool(every) and place % every == 0 for place in range(number)]
    kept = kept_places(is_evaluation, max_points)
    assert len(kept) == min(number, max_points)
    assert kept == sorted(set(kept))
    assert all(0 <= place < number for place in kept)
    if kept:
        assert kept[-1] == number - 1
    if len(kept) > 1:
        assert kept[0] == 0


def test_thinned_curve_is_even() -> None:
    kept = kept_places([False] * 1000, 100)
    distances = [later - earlier for earlier, later in itertools.pairwise(kept)]
    assert max(distances) <= 16
    assert min(distances) >= 5


def test_few_evaluations_stay_in_a_thinned_curve() -> None:
    evaluations = {137, 500, 931}
    kept = kept_places([place in evaluations for place in range(1000)], 10)
    assert evaluations <= set(kept)
    assert len(kept) == 10


def test_evaluations_go_last_of_a_curve() -> None:
    evaluations = {0, 12, 24, 36}
    is_evaluation = [place in evaluations for place in range(37)]
    assert set(kept_places(is_evaluation, 5)) > evaluations
    assert set(kept_places(is_evaluation, 3)) < evaluations
    assert kept_places([True] * 100, 3) == [0, 50, 99]


@pytest.mark.parametrize(("max_points", "steps"), [(0, []), (-3, []), (1, [9]), (2, [1, 9]), (4, [1, 3, 7, 9])])
def test_points_are_thinned_out_on_reading(running: Store, max_points: int, steps: list[int]) -> None:
    for number in (1, 3, 5, 7, 9):
        step(running, number)
    read = [point.step for point in running.jobs.metric_points("job-1", max_points)]
    if max_points == 4:
        assert (len(read), read[0], read[-1]) == (4, 1, 9)
    else:
        assert read == steps
