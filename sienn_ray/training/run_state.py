"""Progress of a run, as its checkpoints keep it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from sienn_ray.training.rewards import NO_REWARDS, Rewards, RewardSums

_FILE_NAME = "state.json"


@dataclass(frozen=True)
class EvalRecord:
    """Losses at one evaluation.

    Args:
        epoch: Epoch that it was in; 0 is the model that the run starts from, before the first step.
        step: Optimizer steps that were done.
        train_loss: Mean since the epoch began; None before the first step.
        eval_loss: None where nothing is evaluated on.
        train_rewards: Means since the epoch began; None of a loss without rewards, and before the first step.
        eval_rewards: Of the rows that are evaluated on, likewise.
    """

    epoch: int
    train_loss: float | None
    eval_loss: float | None
    step: int = 0
    train_rewards: Rewards | None = None
    eval_rewards: Rewards | None = None

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> EvalRecord:
        """Read what `asdict` has made of one."""
        rewards = {name: Rewards(**fields[name]) for name in ("train_rewards", "eval_rewards") if fields.get(name)}
        return cls(**{**fields, **rewards})


@dataclass
class RunState:
    """Progress of a run: position, history, and the losses that count.

    Args:
        steps_done: Optimizer steps.
        tokens_done: Tokens of their rows.
        train_seconds: Seconds of training.
        elapsed_s: The same with evaluations.
        epoch_loss_sum: Losses since the epoch began, summed over `epoch_weight` completion tokens or pairs.
        epoch_weight: What that sum is to be divided by.
        epoch_rewards: Rewards since the epoch began, where the loss has any.
        num_dropped_rows: Rows of the first epoch without room for an answer, on all workers.
        num_long_rows: Rows of the first epoch with more than `max_length` tokens, cut, split or dropped, on all
            workers.
        num_split_rows: Those of them that are several examples.
        num_cut_rows: Those of them that stay, but for some of their tokens.
        num_cut_tokens: Tokens that were cut off from them.
        num_long_eval_rows: The same of the rows that are evaluated on.
        best_eval_loss: Lowest evaluation loss after the first step.
        best_step: When that was.
        best_epoch: Epoch of that step.
        evals_without_gain: Evaluations since.
        micro_batch_rows: Rows of a forward pass, where another attempt or an earlier version ran out of memory with
            more.
        micro_batch_tokens: Tokens of a forward pass that memory suffices for; None until it was too small.
        loss_scale: Scale of the loss, where gradients are computed in float16.
        loss_scale_clean_steps: Steps without overflow since it was changed.
        stop_reason: Why the run ended before its last epoch, if it did.
        history: One record for each evaluation and each epoch.
    """

    steps_done: int = 0
    tokens_done: int = 0
    train_seconds: float = 0.0
    elapsed_s: float = 0.0
    epoch_loss_sum: float = 0.0
    epoch_weight: int = 0
    epoch_rewards: RewardSums = NO_REWARDS
    num_dropped_rows: int = 0
    num_long_rows: int = 0
    num_split_rows: int = 0
    num_cut_rows: int = 0
    num_cut_tokens: int = 0
    num_long_eval_rows: int = 0
    best_eval_loss: float | None = None
    best_step: int | None = None
    best_epoch: int | None = None
    evals_without_gain: int = 0
    micro_batch_rows: int | None = None
    micro_batch_tokens: int | None = None
    loss_scale: float | None = None
    loss_scale_clean_steps: int = 0
    is_done: bool = False
    stop_reason: str | None = None
    history: list[EvalRecord] = field(default_factory=list)

    @property
    def known_limits(self) -> MicroBatchLimits:
        """Limits of a micro batch that memory was found to ask for."""
        return MicroBatchLimits(self.micro_batch_rows, self.micro_batch_tokens)

    def tighten(self, limits: MicroBatchLimits) -> None:
        """Note that memory asks for these limits as well."""
        both = self.known_limits.tightened(limits)
        self.micro_batch_rows, self.micro_batch_tokens = both.max_examples, both.max_tokens

    @property
    def published(self) -> EvalRecord:
        """Losses of the adapter that is published: the best evaluated one, or the last."""
        return next((entry for entry in self.history if entry.step == self.best_step), self.history[-1])


def write_state(folder: Path, state: RunState) -> None:
    """Write it into a checkpoint's folder."""
    (folder / _FILE_NAME).write_text(json.dumps(asdict(state)))


def read_state(folder: Path) -> RunState:
    """Read only how far the run had come."""
    fields = json.loads((folder / _FILE_NAME).read_text())
    history = [EvalRecord.of_fields(record) for record in fields.pop("history")]
    rewards = RewardSums(*fields.pop("epoch_rewards", NO_REWARDS))
    return RunState(**fields, history=history, epoch_rewards=rewards)
