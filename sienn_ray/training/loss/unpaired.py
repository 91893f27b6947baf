"""The loss over answers that are labelled desirable or undesirable, each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from sienn_ray.training.loss.batches import Batch
from sienn_ray.training.loss.examples import Example, LossSums, rows_of
from sienn_ray.training.loss.reference import Reference
from sienn_ray.training.loss.scoring import Scorer
from sienn_ray.training.methods import Method


class UnpairedObjective:
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306, equations 7 and 8).

    Args:
        scorer: Says how likely a model with an adapter finds a row.
        reference: The model that the run starts from.
        beta: How much a departure from the reference costs.
        desirable_weight: The paper's lambda of desirable answers.
        undesirable_weight: The paper's lambda of undesirable answers.

    Attributes:
        baseline: The paper's z0 before it is scaled: the mean log-ratio of mismatched answers, at least 0; a
            scalar on any device.
    """

    name = Method.KTO
    rows_per_example = 1
    has_reference = True
    has_baseline = True

    def __init__(
        self,
        scorer: Scorer,
        reference: Reference,
        beta: float,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
    ) -> None:
        self._scorer = scorer
        self._reference = reference
        self._beta = beta
        self._weights = (desirable_weight, undesirable_weight)
        self._is_start = False
        self.baseline: float | torch.Tensor = 0.0

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """See `Objective.at_start`."""
        self._is_start = True
        try:
            yield
        finally:
            self._is_start = False

    def weight(self, examples: Sequence[Example]) -> int:
        """Answers."""
        return len(examples)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """See `Objective.collate`."""
        labels = torch.tensor([example.is_desirable for example in examples])
        return replace(self._scorer.collate(rows_of(examples)), is_desirable=labels)

    def sums(self, batch: Batch) -> LossSums:
        """W (1 - sigmoid(beta (r - z0))) of desirable answers, w (1 - sigmoid(beta (z0 - r))) of others."""
        log_ratios, is_desirable = self._log_ratios(batch), batch.is_desirable
        assert is_desirable is not None  # nosec B101 # every batch has labels
        desirable, undesirable = self._weights
        gains = self._beta * (log_ratios - self.baseline) * torch.where(is_desirable, 1.0, -1.0)
        losses = torch.where(is_desirable, desirable, undesirable) * torch.sigmoid(-gains)
        with torch.no_grad():
            rewards, nothing = self._beta * log_ratios, log_ratios.new_zeros(())
            num_desirable = is_desirable.sum().to(rewards)
            numbers = [
                (rewards * is_desirable).sum(),
                (rewards * ~is_desirable).sum(),
                num_desirable,
                len(is_desirable) - num_desirable,
                nothing,
                nothing,
            ]
        return LossSums(losses.sum(), torch.stack(numbers))

    @torch.no_grad()
    def log_ratio_sum(self, batch: Batch) -> torch.Tensor:
        """See `Objective.log_ratio_sum`."""
        return self._log_ratios(batch).sum()

    def _log_ratios(self, batch: Batch) -> torch.Tensor:
        """(examples,); how much likelier each answer has become since the start, in nats."""
        if self._is_start:
            return torch.zeros(len(batch.targets_per_row), device=batch.targets.device)
        with torch.no_grad(), self._reference.active():
            reference = self._row_log_probs(batch)
        return self._row_log_probs(batch) - reference

    def _row_log_probs(self, batch: Batch) -> torch.Tensor:
        return row_sums(self._scorer.log_probs(batch), batch.targets_per_row)


def row_sums(values: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """(rows,); sums over successive stretches of a vector."""
    return torch.stack([part.sum() for part in torch.split(values, list(sizes))])
