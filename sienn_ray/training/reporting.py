"""Progress reports of a run and commands to it; who listens is not training's business."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

from sienn_ray.training.rewards import Rewards


class Phase(StrEnum):
    """Phases of a run."""

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


# A forward pass beside the forward and two backward ones of a training step.
_EVAL_BATCH_COST = 1 / 3


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Progress of a run. Fields that aren't known are None; a float that is no number was reported as such."""

    current_epoch: int | None = None
    total_epochs: int | None = None
    current_step: int | None = None
    total_steps: int | None = None
    current_loss: float | None = None
    eval_loss: float | None = None
    # Mean training loss since the epoch began, at its end or at an evaluation.
    epoch_loss: float | None = None
    # Of answers, where the loss is over preferences: means of the last step, and of an evaluation; see `rewards`.
    rewards_chosen: float | None = None
    rewards_rejected: float | None = None
    rewards_margins: float | None = None
    rewards_accuracies: float | None = None
    eval_rewards_chosen: float | None = None
    eval_rewards_rejected: float | None = None
    eval_rewards_margins: float | None = None
    eval_rewards_accuracies: float | None = None
    learning_rate: float | None = None
    tokens_per_s: float | None = None
    time_left_s: float | None = None
    # Of the whole run, what was trained before a resume included.
    num_tokens: int | None = None
    # Rows with more than `max_length` tokens among those read so far, and the tokens cut off from them.
    num_long_rows: int | None = None
    num_split_rows: int | None = None
    num_cut_rows: int | None = None
    num_cut_tokens: int | None = None
    train_seconds: float | None = None
    # What its workers reserve, all together.
    reserved_cpus: float | None = None
    reserved_gpus: float | None = None
    # Rows of a mixture by the id of their dataset: of an epoch, and once the run is over of all its steps.
    rows_per_epoch: dict[str, int] | None = None
    rows_seen: dict[str, int] | None = None
    # Seconds by what they were spent on, from the submission to the first step.
    timeline: dict[str, float] | None = None

    def known(self) -> dict[str, Any]:
        """The fields that are known, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(RunProgress)}
        return {name: value for name, value in values.items() if value is not None}

    def updated(self, newer: RunProgress) -> RunProgress:
        """Return this progress with all that a newer one knows."""
        return RunProgress(**{**self.known(), **newer.known()})


@dataclass(frozen=True)
class Progress(RunProgress):
    """One look at a run. Fields that it doesn't know leave earlier values standing."""

    phase: Phase
    message: str
    percent: int
    # Something that a user should know of, told once.
    warning: str | None = None

    @classmethod
    def of_phase(cls, phase: Phase, message: str) -> Progress:
        """Progress that says no more than that a phase has begun."""
        return cls(phase, message, PHASE_PERCENT[phase])


class RunCommand(StrEnum):
    """Commands to a run."""

    GO_ON = "go_on"
    # Write a checkpoint and end; the run is to be resumed later.
    PAUSE = "pause"
    # End at once and leave everything as it is: the job doesn't await this attempt any more.
    STOP = "stop"


class Reporter(Protocol):
    """Takes progress and knows what is wanted of the run.

    `report` and `command` must return at once and never raise, since training waits for them.
    """

    def report(self, progress: Progress) -> None:
        """Pass one look at the run on."""
        ...

    def command(self) -> RunCommand:
        """The latest wish that is known, as the answer to an earlier report; `GO_ON` where none is."""
        ...

    def is_awaited(self) -> bool:
        """Return whether the job awaits this attempt still; asks, and waits for the answer."""
        ...


class ProgressMeter:
    """Turns steps and evaluation batches into progress, no more often than asked.

    Args:
        reporter: Who is told.
        num_epochs: Epochs of the whole run.
        num_steps: Optimizer steps of the whole run.
        num_eval_batches: Batches of one evaluation; there is one before the first epoch and one after each.
        first_step: Steps that an earlier attempt has done.
        first_tokens: Tokens that it has trained on.
        first_seconds: Seconds that it took for them.
        interval_s: Shortest time between two reports.
        start_words: What the run starts from.
        clock: Seconds from any fixed point.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        num_epochs: int,
        num_steps: int,
        num_eval_batches: int,
        first_step: int,
        first_tokens: int = 0,
        first_seconds: float = 0.0,
        interval_s: float,
        start_words: str = "the base model",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reporter = reporter
        self._num_epochs = num_epochs
        self._num_steps = num_steps
        self._num_eval_batches = num_eval_batches
        self._first_step = first_step
        self._first_tokens = first_tokens
        self._first_seconds = first_seconds
        self._interval_s = interval_s
        self._start_words = start_words
        self._clock = clock
        self._training_s = 0.0
        self._step_began: float | None = None
        self._last_report = float("-inf")
        self._percent_told = 0
        self._long_rows = RunProgress()

    @property
    def train_seconds(self) -> float:
        """Seconds of training in the whole run so far, without evaluations."""
        return self._first_seconds + self._training_s

    def begin_step(self) -> None:
        """A step begins; what was between two of them (evaluations, checkpoints) is no training time."""
        self._step_began = self._clock()

    def tell_timeline(self, timeline: dict[str, float], *, epoch: int, step: int) -> None:
        """Say where the time before the first step went."""
        message = f"Training in progress: Epoch {epoch}/{self._num_epochs}"
        percent = self._percent(step, epoch * self._num_eval_batches)
        self._report(self._clock(), Progress(Phase.TRAINING, message, percent, timeline=timeline))

    def step(
        self,
        *,
        epoch: int,
        step: int,
        loss: float,
        num_tokens: int,
        learning_rate: float,
        rewards: Rewards | None = None,
    ) -> None:
        """Count one optimizer step; `step` and `num_tokens` are how many are done, `epoch` is 1-based."""
        now = self._clock()
        self._training_s += now - (now if self._step_began is None else self._step_began)
        self._step_began = now
        if not self._is_due(now) and step < self._num_steps:
            return
        elapsed_s = max(self._training_s, 1e-9)
        seconds_per_step = elapsed_s / max(step - self._first_step, 1)
        self._report(
            now,
            Progress(
                Phase.TRAINING,
                f"Training in progress: Epoch {epoch}/{self._num_epochs}",
                self._percent(step, epoch * self._num_eval_batches),
                current_epoch=epoch,
                total_epochs=self._num_epochs,
                current_step=step,
                total_steps=self._num_steps,
                current_loss=round(loss, 4),
                **_named(rewards),
                learning_rate=learning_rate,
                tokens_per_s=round((num_tokens - self._first_tokens) / elapsed_s, 1),
                time_left_s=round(seconds_per_step * (self._num_steps - step), 1),
                num_tokens=num_tokens,
                **self._long_rows.known(),
                train_seconds=round(self.train_seconds, 3),
            ),
        )

    def count_long_rows(self, *, num_long: int, num_split: int, num_cut: int, num_cut_tokens: int) -> None:
        """Have the reports of steps say how many rows were too long so far, and what became of them."""
        self._long_rows = RunProgress(
            num_long_rows=num_long, num_split_rows=num_split, num_cut_rows=num_cut, num_cut_tokens=num_cut_tokens
        )

    def warn(self, warning: str, *, epoch: int, step: int) -> None:
        """Say at once what a user should know of."""
        message = f"Training in progress: Epoch {epoch}/{self._num_epochs}"
        percent = self._percent(step, epoch * self._num_eval_batches)
        self._report(
            self._clock(),
            Progress(
                Phase.TRAINING,
                message,
                percent,
                warning,
                **self._long_rows.known(),
            ),
        )

    def eval_batch(self, *, epoch: int, step: int, batch: int) -> None:
        """Count one batch of an evaluation (of the base model in epoch 0); `batch` is how many are done."""
        now = self._clock()
        if self._is_due(now):
            message = f"Evaluating {self._place(epoch, step)}"
            percent = self._percent(step, epoch * self._num_eval_batches + batch)
            self._report(now, Progress(Phase.EVALUATING, message, percent))

    def evaluated(
        self,
        *,
        epoch: int,
        step: int,
        eval_loss: float,
        train_loss: float | None = None,
        rewards: Rewards | None = None,
    ) -> None:
        """Say how an evaluation ended."""
        trained = "" if train_loss is None else f", training loss {train_loss:.4f}"
        preferred = "" if epoch == 0 else _words_of(rewards)
        message = f"Evaluated {self._place(epoch, step)}: evaluation loss {eval_loss:.4f}{trained}{preferred}"
        percent = self._percent(step, (epoch + 1) * self._num_eval_batches)
        self._report(
            self._clock(),
            Progress(
                Phase.EVALUATING,
                message,
                percent,
                current_epoch=epoch,
                total_epochs=self._num_epochs,
                current_step=step,
                total_steps=self._num_steps,
                eval_loss=round(eval_loss, 4),
                **_named(rewards, "eval_"),
                epoch_loss=None if train_loss is None else round(train_loss, 4),
            ),
        )

    def epoch_done(self, *, epoch: int, step: int, train_loss: float) -> None:
        """Say how an epoch ended that no evaluation follows."""
        message = f"Epoch {epoch}/{self._num_epochs} done at step {step}: training loss {train_loss:.4f}"
        percent = self._percent(step, epoch * self._num_eval_batches)
        self._report(self._clock(), Progress(Phase.TRAINING, message, percent, epoch_loss=round(train_loss, 4)))

    def _place(self, epoch: int, step: int) -> str:
        """Where in a run an evaluation is, in words; the epochs have a fraction within an epoch."""
        if epoch == 0:
            return self._start_words
        epochs = step * self._num_epochs / max(self._num_steps, 1)
        return f"at step {step} (epoch {epochs:.2f}".rstrip("0").rstrip(".") + ")"

    def _is_due(self, now: float) -> bool:
        return now - self._last_report >= self._interval_s

    def _report(self, now: float, progress: Progress) -> None:
        self._last_report = now
        self._reporter.report(progress)

    def _percent(self, steps_done: int, eval_batches_done: int) -> int:
        low, high = PHASE_PERCENT[Phase.TRAINING], PHASE_PERCENT[Phase.SAVING]
        work_done = steps_done + _EVAL_BATCH_COST * eval_batches_done
        work = self._num_steps + _EVAL_BATCH_COST * self._num_eval_batches * (self._num_epochs + 1)
        percent = low + int((high - low) * min(work_done / max(work, 1), 1.0))
        # The base model's evaluation comes late, and there may be more of them than one for each epoch.
        self._percent_told = max(self._percent_told, percent)
        return self._percent_told


def _named(rewards: Rewards | None, prefix: str = "") -> dict[str, Any]:
    return {} if rewards is None else rewards.rounded().named(prefix)


def _words_of(rewards: Rewards | None) -> str:
    """Write margin and accuracy as the end of a sentence."""
    if rewards is None or rewards.margins is None:
        return ""
    accuracy = "" if rewards.accuracies is None else f", chosen over rejected {rewards.accuracies:.0%}"
    return f", reward margin {rewards.margins:.4f}{accuracy}"
