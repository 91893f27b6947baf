from __future__ import annotations

import pytest

from sienn_ray.training.progress_log import ProgressLog
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_training import RecordingReporter


def step(number: int) -> Progress:
    return Progress(
        Phase.TRAINING,
        "Training in progress: Epoch 1/2",
        10,
        current_epoch=1,
        total_epochs=2,
        current_step=number,
        total_steps=4,
        current_loss=0.5,
        learning_rate=2e-4,
        tokens_per_s=103.4,
        time_left_s=234.0,
    )


def test_losses_are_logged_now_and_then_and_the_last_one_always(caplog: pytest.LogCaptureFixture) -> None:
    now, reporter = [0.0], RecordingReporter()
    log = ProgressLog(reporter, interval_s=10, clock=lambda: now[0])
    with caplog.at_level("INFO"):
        for number, moment in enumerate([0.0, 9.9, 10.0, 11.0], start=1):
            now[0] = moment
            log.report(step(number))
    assert caplog.messages == [
        f"epoch 1/2, step {number}/4: loss 0.5000, learning rate 0.0002, 103 tokens/s, 3:54 left"
        for number in (1, 3, 4)
    ]
    assert [report.current_step for report in reporter.reports] == [1, 2, 3, 4]


def test_evaluations_ends_of_epochs_and_warnings_are_always_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = ProgressLog(RecordingReporter(), interval_s=3600, clock=lambda: 0.0)
    with caplog.at_level("INFO"):
        log.report(step(1))
        log.report(Progress(Phase.EVALUATING, "Evaluated at step 2 (epoch 1)", 10, eval_loss=0.5))
        log.report(Progress(Phase.TRAINING, "Epoch 1/2 done", 10, epoch_loss=0.5))
        log.report(Progress(Phase.TRAINING, "Training in progress", 10, "Rows are too long"))
    assert caplog.messages[1:] == ["Evaluated at step 2 (epoch 1)", "Epoch 1/2 done", "Rows are too long"]
