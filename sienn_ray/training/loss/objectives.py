"""Objectives: the losses over completions, over preferences between two of them, and over labelled ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, assert_never

import torch

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.loss.batches import Batch
from sienn_ray.training.loss.examples import Example, LossSums, rows_of
from sienn_ray.training.loss.packing import num_targets
from sienn_ray.training.loss.pair_losses import DpoLoss, IpoLoss, OrpoLoss, PairLoss, PairScores, SimpoLoss
from sienn_ray.training.loss.reference import Reference
from sienn_ray.training.loss.scoring import Scorer
from sienn_ray.training.loss.unpaired import UnpairedObjective, row_sums
from sienn_ray.training.methods import Method


class Objective(Protocol):
    """A loss that is a sum over examples, so that it can be computed in parts.

    Attributes:
        name: The method that it is the loss of.
        rows_per_example: Token sequences of an example.
        has_reference: Whether the adapter is compared with the model that the run starts from, both of which then go
            without the base model's own dropout: each would drop other activations.
        has_baseline: Whether the loss depends on the mean log-ratio of mismatched answers over all examples of a step;
            `baseline` is then set before its losses are asked for.
        baseline: That mean, in nats; a scalar on any device.
    """

    name: Method
    rows_per_example: int
    has_reference: bool
    has_baseline: bool
    baseline: float | torch.Tensor

    def at_start(self) -> AbstractContextManager[None]:
        """Compute losses of the model that the run starts from meanwhile."""
        ...

    def weight(self, examples: Sequence[Example]) -> int:
        """Return the divisor that makes a mean of the sum."""
        ...

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Make a batch of at least one example, on the CPU; any thread may, while another one computes."""
        ...

    def sums(self, batch: Batch) -> LossSums:
        """Loss and rewards of a batch's examples, which is on the device."""
        ...

    def log_ratio_sum(self, batch: Batch) -> torch.Tensor:
        """Sum of the log-ratios of all the answers to those at the start, in nats; a scalar without a gradient."""
        ...


class CompletionObjective:
    """Cross-entropy of every completion token.

    The mean is over all completion tokens of a step. A mean of the rows' means would weigh a token by how short its
    row is.
    """

    name = Method.SFT
    rows_per_example = 1
    has_reference = False
    has_baseline = False
    baseline: float | torch.Tensor = 0.0

    def __init__(self, scorer: Scorer, reference: Reference) -> None:
        self._scorer = scorer
        self._reference = reference

    def at_start(self) -> AbstractContextManager[None]:
        """See `Objective.at_start`."""
        return self._reference.active()

    def weight(self, examples: Sequence[Example]) -> int:
        """Completion tokens."""
        return sum(num_targets(labels) for example in examples for _, labels in example.rows)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """See `Objective.collate`."""
        return self._scorer.collate(rows_of(examples))

    def sums(self, batch: Batch) -> LossSums:
        """In nats."""
        return LossSums(-self._scorer.log_probs(batch).sum())

    def log_ratio_sum(self, batch: Batch) -> torch.Tensor:
        """Nothing is compared."""
        return torch.zeros((), device=batch.targets.device)


class PairObjective:
    """A loss over pairs of a chosen and a rejected answer.

    Args:
        loss: What it makes of their log-probabilities.
        scorer: Says how likely a model with an adapter finds a row.
        reference: The model that the run starts from.
    """

    rows_per_example = 2
    has_baseline = False
    baseline: float | torch.Tensor = 0.0

    def __init__(self, loss: PairLoss, scorer: Scorer, reference: Reference) -> None:
        self._loss = loss
        self._scorer = scorer
        self._reference = reference
        self._is_start = False
        self.name = loss.name
        self.has_reference = loss.name.has_reference

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """See `Objective.at_start`."""
        if not self.has_reference:
            with self._reference.active():
                yield
            return
        self._is_start = True
        try:
            yield
        finally:
            self._is_start = False

    def weight(self, examples: Sequence[Example]) -> int:
        """Pairs."""
        return len(examples)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """See `Objective.collate`."""
        return self._scorer.collate(rows_of(examples))

    def sums(self, batch: Batch) -> LossSums:
        """Losses and rewards of all pairs."""
        scores = self.scores(batch)
        loss = self._loss.losses(scores).sum()
        with torch.no_grad():
            rewards = self._loss.rewards(scores)
            num_right = (rewards[:, 0] > rewards[:, 1]).sum()
            count = rewards.new_full((), len(rewards))
            numbers = torch.stack([*rewards.sum(0), count, count, num_right.to(count), count])
        return LossSums(loss, numbers)

    def scores(self, batch: Batch) -> PairScores:
        """Log-probabilities of the pairs' answers."""
        sizes, device = batch.targets_per_row, batch.targets.device
        reference = torch.zeros(len(sizes), device=device)
        if self._is_start:  # which differs from itself in nothing
            nothing = reference.view(-1, 2)
            return PairScores(nothing, nothing, nothing + 1)
        if self.has_reference:
            with torch.no_grad(), self._reference.active():
                reference = row_sums(self._scorer.log_probs(batch), sizes)
        policy = row_sums(self._scorer.log_probs(batch), sizes)
        num_tokens = batch.num_targets.clamp(min=1)
        return PairScores(policy.view(-1, 2), reference.view(-1, 2), num_tokens.view(-1, 2))

    def log_ratio_sum(self, batch: Batch) -> torch.Tensor:
        """Pairs have no baseline."""
        return torch.zeros((), device=batch.targets.device)


def make_objective(method: Method, scorer: Scorer, reference: Reference, config: TrainingConfig) -> Objective:
    """Make the loss of a method.

    Args:
        method: What is learned by.
        scorer: Says how likely the model with its adapter finds a row.
        reference: The model that the run starts from.
        config: Hyperparameters, the loss's own among them.
    """
    match method:
        case Method.SFT:
            return CompletionObjective(scorer, reference)
        case Method.DPO:
            return PairObjective(DpoLoss(config.dpo_beta, config.dpo_label_smoothing), scorer, reference)
        case Method.IPO:
            return PairObjective(IpoLoss(config.ipo_beta), scorer, reference)
        case Method.KTO:
            weights = (config.kto_desirable_weight, config.kto_undesirable_weight)
            return UnpairedObjective(scorer, reference, config.kto_beta, *weights)
        case Method.ORPO:
            return PairObjective(OrpoLoss(config.orpo_lambda), scorer, reference)
        case Method.SIMPO:
            return PairObjective(SimpoLoss(config.simpo_beta, config.simpo_gamma_beta_ratio), scorer, reference)
        case _:
            assert_never(method)
