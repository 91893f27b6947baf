from __future__ import annotations

import pytest

from sienn_ray.training.reporting import PHASE_PERCENT, Phase, Progress, ProgressMeter, RunProgress
from tests.support.fakes_training import RecordingReporter


class ManualClock:
    """Seconds that only move when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(*, num_steps: int, interval_s: float, first_step: int = 0) -> list[Progress]:
    """Reports of a run of two epochs from `first_step` to its end."""
    reporter = RecordingReporter()
    meter = ProgressMeter(
        reporter,
        num_epochs=2,
        num_steps=num_steps,
        num_eval_batches=0,
        first_step=first_step,
        first_tokens=100 * first_step,
        interval_s=interval_s,
    )
    for step in range(first_step + 1, num_steps + 1):
        epoch = 1 if step <= num_steps // 2 else 2
        meter.begin_step()
        meter.step(epoch=epoch, step=step, loss=1 / 3, num_tokens=100 * step, learning_rate=2e-4)
    return reporter.reports


def test_every_phase_has_its_mark_in_order() -> None:
    assert list(PHASE_PERCENT) == list(Phase)
    marks = list(PHASE_PERCENT.values())
    assert marks == sorted(marks)
    assert (marks[0], marks[-1]) == (0, 98)


def test_only_known_fields_are_told() -> None:
    assert Progress.of_phase(Phase.LOADING_DATA, "Loading").known() == {}
    progress = Progress(Phase.TRAINING, "Training", 40, current_loss=0.0, current_step=0)
    assert progress.known() == {"current_loss": 0.0, "current_step": 0}
    earlier = RunProgress(current_loss=1.0, total_steps=9)
    assert earlier.updated(progress) == RunProgress(current_loss=0.0, current_step=0, total_steps=9)


@pytest.mark.parametrize("phase", Phase)
def test_phase_starts_at_its_mark(phase: Phase) -> None:
    assert Progress.of_phase(phase, "words").percent == PHASE_PERCENT[phase]


def test_step_says_all_that_is_known() -> None:
    reports = run(num_steps=10, interval_s=0)
    assert reports[0].message == "Training in progress: Epoch 1/2"
    assert reports[5].phase is Phase.TRAINING
    facts = reports[5].known()
    assert facts.pop("tokens_per_s") > 0
    assert facts.pop("time_left_s") >= 0
    assert facts.pop("train_seconds") >= 0
    assert facts == {
        "current_epoch": 2,
        "total_epochs": 2,
        "current_step": 6,
        "total_steps": 10,
        "current_loss": 0.3333,
        "learning_rate": 2e-4,
        "num_tokens": 600,
    }


@pytest.mark.parametrize("num_steps", [1, 2, 7, 1000])
def test_percent_rises_from_training_to_saving(num_steps: int) -> None:
    percents = [report.percent for report in run(num_steps=num_steps, interval_s=0)]
    assert len(percents) == num_steps
    assert percents == sorted(percents)
    assert percents[0] >= PHASE_PERCENT[Phase.TRAINING]
    assert percents[-1] == PHASE_PERCENT[Phase.SAVING]


def test_reports_within_the_interval_are_dropped_but_for_the_last() -> None:
    reports = run(num_steps=50, interval_s=3600)
    assert [report.current_step for report in reports] == [1, 50]


def test_no_time_is_left_at_the_end() -> None:
    assert run(num_steps=3, interval_s=0)[-1].time_left_s == 0.0


def test_resumed_run_goes_on_counting() -> None:
    reports = run(num_steps=10, interval_s=0, first_step=8)
    assert [report.current_step for report in reports] == [9, 10]
    assert reports[0].percent > 80


def test_time_left_counts_only_training_and_only_this_attempt() -> None:
    reporter, clock = RecordingReporter(), ManualClock()
    meter = ProgressMeter(
        reporter,
        num_epochs=2,
        num_steps=100,
        num_eval_batches=3,
        first_step=50,
        first_tokens=9_000,
        first_seconds=250.0,
        interval_s=0,
        clock=clock,
    )
    for step in (51, 52):
        clock.now += 1000.0  # an evaluation
        meter.begin_step()
        clock.now += 4.0
        meter.step(epoch=2, step=step, loss=1.0, num_tokens=9_000 + 200 * (step - 50), learning_rate=1e-4)
    report = reporter.reports[-1]
    assert report.tokens_per_s == 50.0
    assert report.time_left_s == 4.0 * 48
    # These are of the whole run.
    assert (report.num_tokens, report.train_seconds) == (9_400, 258.0)
    assert meter.train_seconds == 258.0


def test_progress_moves_through_evaluations_too() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=1, num_steps=6, num_eval_batches=9, first_step=0, interval_s=0)
    for batch in range(1, 10):
        meter.eval_batch(epoch=0, step=0, batch=batch)
    meter.evaluated(epoch=0, step=0, eval_loss=2.00004)
    for step in range(1, 7):
        meter.begin_step()
        meter.step(epoch=1, step=step, loss=1.0, num_tokens=step, learning_rate=1e-4)
    for batch in range(1, 10):
        meter.eval_batch(epoch=1, step=6, batch=batch)
    meter.evaluated(epoch=1, step=6, eval_loss=0.5)
    percents = [report.percent for report in reporter.reports]
    assert percents == sorted(percents)
    assert len(set(percents)) > 20
    assert percents[0] > PHASE_PERCENT[Phase.TRAINING]
    assert percents[-1] == PHASE_PERCENT[Phase.SAVING]
    assert (reporter.reports[8].phase, reporter.reports[8].known()) == (Phase.EVALUATING, {})
    assert reporter.reports[9].known() == {
        "current_epoch": 0,
        "total_epochs": 1,
        "current_step": 0,
        "total_steps": 6,
        "eval_loss": 2.0,
    }
    assert reporter.reports[8].message == "Evaluating the base model"
    assert reporter.reports[9].message == "Evaluated the base model: evaluation loss 2.0000"
    assert reporter.reports[-1].message == "Evaluated at step 6 (epoch 1): evaluation loss 0.5000"


def test_an_evaluation_within_an_epoch_says_where_it_is() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=3, num_steps=18, num_eval_batches=1, first_step=0, interval_s=0)
    meter.eval_batch(epoch=2, step=10, batch=1)
    meter.evaluated(epoch=2, step=10, eval_loss=1.247, train_loss=1.19)
    assert [report.message for report in reporter.reports] == [
        "Evaluating at step 10 (epoch 1.67)",
        "Evaluated at step 10 (epoch 1.67): evaluation loss 1.2470, training loss 1.1900",
    ]
    assert reporter.reports[-1].epoch_loss == 1.19


def test_an_epoch_that_nothing_is_evaluated_behind_tells_its_loss() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=3, num_steps=18, num_eval_batches=0, first_step=0, interval_s=0)
    meter.epoch_done(epoch=1, step=6, train_loss=1.5)
    assert reporter.reports[0].message == "Epoch 1/3 done at step 6: training loss 1.5000"


def test_the_end_of_an_evaluation_is_never_dropped() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=1, num_steps=6, num_eval_batches=2, first_step=0, interval_s=3600)
    for batch in (1, 2):
        meter.eval_batch(epoch=0, step=0, batch=batch)
    meter.evaluated(epoch=0, step=0, eval_loss=0.25)
    assert [report.eval_loss for report in reporter.reports] == [None, 0.25]


def test_the_timeline_is_told_at_once_and_moves_nothing() -> None:
    """Also right behind another report, and without a word on the loss."""
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=3, num_steps=6, num_eval_batches=0, first_step=0, interval_s=3600)
    meter.begin_step()
    meter.step(epoch=1, step=1, loss=1.0, num_tokens=10, learning_rate=1e-4)
    meter.tell_timeline({"first_step": 1.5, "total": 1.5}, epoch=1, step=1)
    step, told = reporter.reports
    assert told.known() == {"timeline": {"first_step": 1.5, "total": 1.5}}
    assert (told.percent, told.message) == (step.percent, "Training in progress: Epoch 1/3")


def test_run_without_steps_still_has_a_percent() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=1, num_steps=0, num_eval_batches=0, first_step=0, interval_s=0)
    meter.eval_batch(epoch=0, step=0, batch=0)
    assert reporter.reports[0].percent == PHASE_PERCENT[Phase.EVALUATING]
