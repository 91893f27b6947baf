from __future__ import annotations

import pytest

from sienn_ray.training.reporting import PHASE_PERCENT, Phase, Progress, ProgressMeter


class RecordingReporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[Progress] = []

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)


def run(*, num_steps: int, interval_s: float, first_step: int = 0) -> list[Progress]:
    """Reports of a run of two epochs from `first_step` to its end."""
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=2, num_steps=num_steps, first_step=first_step, interval_s=interval_s)
    for step in range(first_step + 1, num_steps + 1):
        epoch = 1 if step <= num_steps // 2 else 2
        meter.step(epoch=epoch, step=step, loss=1 / 3, tokens=100, learning_rate=2e-4)
    return reporter.reports


def test_every_phase_has_its_mark_in_order() -> None:
    assert list(PHASE_PERCENT) == list(Phase)
    marks = list(PHASE_PERCENT.values())
    assert marks == sorted(marks)
    assert (marks[0], marks[-1]) == (0, 98)


def test_unknown_fields_are_left_out_of_the_facts() -> None:
    assert Progress.of_phase(Phase.LOADING_DATA, "Loading").facts() == {"phase": "loading_data"}
    progress = Progress(Phase.TRAINING, "Training", 40, current_loss=0.0, current_step=0)
    assert progress.facts() == {"phase": "training", "current_loss": 0.0, "current_step": 0}


@pytest.mark.parametrize("phase", Phase)
def test_phase_starts_at_its_mark(phase: Phase) -> None:
    assert Progress.of_phase(phase, "words").percent == PHASE_PERCENT[phase]


def test_step_says_all_that_is_known() -> None:
    reports = run(num_steps=10, interval_s=0)
    assert reports[0].message == "Training in progress: Epoch 1/2"
    facts = reports[5].facts()
    assert facts.pop("tokens_per_s") > 0
    assert facts.pop("time_left_s") >= 0
    assert facts == {
        "phase": "training",
        "current_epoch": 2,
        "total_epochs": 2,
        "current_step": 6,
        "total_steps": 10,
        "current_loss": 0.3333,
        "learning_rate": 2e-4,
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


def test_time_left_counts_only_steps_of_this_attempt() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=1, num_steps=10**12, first_step=10**12 - 10**9, interval_s=0)
    meter.step(epoch=1, step=10**12 - 10**9 + 1, loss=1.0, tokens=1000, learning_rate=1e-4)
    (report,) = reporter.reports
    assert report.tokens_per_s is not None
    assert report.time_left_s is not None
    # One step took 1000 / tokens_per_s seconds, and 10^9 - 1 such steps are left.
    assert report.time_left_s == pytest.approx(1000 / report.tokens_per_s * (10**9 - 1), rel=0.01)


def test_evaluation_keeps_the_place_and_adds_its_loss() -> None:
    reporter = RecordingReporter()
    meter = ProgressMeter(reporter, num_epochs=2, num_steps=10, first_step=0, interval_s=3600)
    meter.evaluating(epoch=0, step=0)
    meter.step(epoch=1, step=5, loss=1.0, tokens=1, learning_rate=1e-4)
    meter.evaluating(epoch=1, step=5)
    meter.evaluating(epoch=1, step=5, eval_loss=0.5)
    before, step, begun, ended = reporter.reports  # evaluations are never dropped
    assert before.percent == PHASE_PERCENT[Phase.TRAINING]
    assert step.percent == begun.percent == ended.percent
    assert begun.facts() == {"phase": "evaluating"}
    assert ended.facts() == {"phase": "evaluating", "eval_loss": 0.5}
    assert ended.message == "Evaluating after epoch 1/2"


def test_run_without_steps_still_has_a_percent() -> None:
    reporter = RecordingReporter()
    ProgressMeter(reporter, num_epochs=1, num_steps=0, first_step=0, interval_s=0).evaluating(epoch=0, step=0)
    assert reporter.reports[0].percent == PHASE_PERCENT[Phase.EVALUATING]
