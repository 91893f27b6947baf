"""What a run tells the outside while it goes on; who listens is not training's business."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol


class Phase(StrEnum):
    """What a run is doing."""

    STARTING = "starting"
    LOADING_DATA = "loading_data"
    WAITING_FOR_RESOURCES = "waiting_for_resources"
    LOADING_MODEL = "loading_model"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAVING = "saving"


# Where a phase begins on the scale of 0 to 100; training moves from its own mark to that of saving.
PHASE_PERCENT = {
    Phase.STARTING: 0,
    Phase.LOADING_DATA: 1,
    Phase.WAITING_FOR_RESOURCES: 2,
    Phase.LOADING_MODEL: 3,
    Phase.TRAINING: 5,
    Phase.EVALUATING: 5,
    Phase.SAVING: 98,
}


@dataclass(frozen=True)
class Progress:
    """One look at a run. Fields that aren't known yet are None and leave earlier values standing."""

    phase: Phase
    message: str
    percent: int
    current_epoch: int | None = None
    total_epochs: int | None = None
    current_step: int | None = None
    total_steps: int | None = None
    current_loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_s: float | None = None
    time_left_s: float | None = None

    def facts(self) -> dict[str, Any]:
        """The known fields beside phase's message and percent, by name."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None and name not in {"message", "percent"}
        }

    @classmethod
    def of_phase(cls, phase: Phase, message: str) -> Progress:
        """Progress that says no more than that a phase has begun."""
        return cls(phase, message, PHASE_PERCENT[phase])


class Reporter(Protocol):
    """Takes progress; must return at once and never raise, since training waits for it."""

    def report(self, progress: Progress) -> None:
        """Pass one look at the run on."""
        ...


class ProgressMeter:
    """Turns steps into progress, no more often than asked.

    Args:
        reporter: Who is told.
        num_epochs: Epochs of the whole run.
        num_steps: Optimizer steps of the whole run.
        first_step: Steps that an earlier attempt has done.
        interval_s: Shortest time between two reports.
    """

    def __init__(
        self, reporter: Reporter, *, num_epochs: int, num_steps: int, first_step: int, interval_s: float
    ) -> None:
        self._reporter = reporter
        self._num_epochs = num_epochs
        self._num_steps = num_steps
        self._interval_s = interval_s
        self._first_step = first_step
        self._started = time.monotonic()
        self._tokens = 0
        self._last_report = float("-inf")

    def step(self, *, epoch: int, step: int, loss: float, tokens: int, learning_rate: float) -> None:
        """Count one optimizer step; `step` is how many are done, `epoch` is 1-based."""
        self._tokens += tokens
        now = time.monotonic()
        if now - self._last_report < self._interval_s and step < self._num_steps:
            return
        self._last_report = now
        elapsed_s = max(now - self._started, 1e-9)
        seconds_per_step = elapsed_s / max(step - self._first_step, 1)
        self._reporter.report(
            Progress(
                Phase.TRAINING,
                f"Training in progress: Epoch {epoch}/{self._num_epochs}",
                self._percent(step),
                current_epoch=epoch,
                total_epochs=self._num_epochs,
                current_step=step,
                total_steps=self._num_steps,
                current_loss=round(loss, 4),
                learning_rate=learning_rate,
                tokens_per_s=round(self._tokens / elapsed_s, 1),
                time_left_s=round(seconds_per_step * (self._num_steps - step), 1),
            )
        )

    def evaluating(self, *, epoch: int, step: int, eval_loss: float | None = None) -> None:
        """Say that an evaluation has begun or, with its loss, ended."""
        rounded = None if eval_loss is None else round(eval_loss, 4)
        message = f"Evaluating after epoch {epoch}/{self._num_epochs}"
        self._reporter.report(Progress(Phase.EVALUATING, message, self._percent(step), eval_loss=rounded))

    def _percent(self, step: int) -> int:
        low, high = PHASE_PERCENT[Phase.TRAINING], PHASE_PERCENT[Phase.SAVING]
        return low + int((high - low) * step / max(self._num_steps, 1))
