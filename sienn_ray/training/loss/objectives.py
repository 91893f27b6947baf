"""Objectives: the losses over completions, or over preferences between two of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, assert_never

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.datasets.schema import RowKind
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.loss.packing import TokenRow, num_targets
from sienn_ray.training.loss.scoring import Scorer
from sienn_ray.training.methods import Method

# The rows that belong together: one, or a chosen and a rejected one.
Example = tuple[TokenRow, ...]


class Objective(Protocol):
    """A loss that is a sum over examples, so that it can be computed in parts.

    Attributes:
        name: The method that it is the loss of.
        rows_per_example: Token sequences of an example.
        has_reference: Whether the adapter is compared with the base model, both of which then go without the base
            model's own dropout: each would drop other activations.
    """

    name: Method
    rows_per_example: int
    has_reference: bool

    def without_adapter(self) -> AbstractContextManager[None]:
        """Compute losses of the base model meanwhile."""
        ...

    def weight(self, examples: Sequence[Example]) -> int:
        """Return the divisor that makes a mean of the sum."""
        ...

    def loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """Scalar float32; the loss of all examples."""
        ...


class CompletionObjective:
    """Cross-entropy of every completion token.

    The mean is over all completion tokens of a step. A mean of the rows' means would weigh a token by how short its
    row is.
    """

    name = Method.SFT
    rows_per_example = RowKind.CONVERSATION.num_sequences
    has_reference = False

    def __init__(self, scorer: Scorer, adapter: Any) -> None:
        self._scorer = scorer
        self._adapter = adapter

    def without_adapter(self) -> AbstractContextManager[None]:
        """See `Objective.without_adapter`."""
        context: AbstractContextManager[None] = self._adapter.disable_adapter()
        return context

    def weight(self, examples: Sequence[Example]) -> int:
        """Completion tokens."""
        return sum(num_targets(labels) for ((_, labels),) in examples)

    def loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """In nats."""
        return -self._scorer.log_probs(self._scorer.batch([row for (row,) in examples])).sum()


class PreferenceObjective:
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    The reference is the base model itself, the same one with its adapter switched off.

    Args:
        scorer: Says how likely a model with an adapter finds a row.
        adapter: The PEFT model.
        beta: How much a departure from the base model costs.
    """

    name = Method.DPO
    rows_per_example = RowKind.PREFERENCE.num_sequences
    has_reference = True

    def __init__(self, scorer: Scorer, adapter: Any, beta: float) -> None:
        self._scorer = scorer
        self._adapter = adapter
        self._beta = beta
        self._is_base = False

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """See `Objective.without_adapter`."""
        self._is_base = True
        try:
            yield
        finally:
            self._is_base = False

    def weight(self, examples: Sequence[Example]) -> int:
        """Pairs."""
        return len(examples)

    def loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log sigmoid(beta (policy's log-ratio of chosen to rejected - reference's)), summed over pairs."""
        return -F.logsigmoid(self._beta * self.margins(examples)).sum()

    def margins(self, examples: Sequence[Example]) -> torch.Tensor:
        """(pairs,); how much more than the base model the adapter prefers the chosen answers, in nats."""
        if self._is_base:  # which differs from itself in nothing
            return torch.zeros(len(examples))  # on any device: it is only counted
        batch = self._scorer.batch([row for example in examples for row in example])
        with torch.no_grad(), self._adapter.disable_adapter():
            reference = _row_sums(self._scorer.log_probs(batch), batch.targets_per_row)
        policy = _row_sums(self._scorer.log_probs(batch), batch.targets_per_row)
        margins = (policy - reference).view(-1, 2)
        return margins[:, 0] - margins[:, 1]


def make_objective(method: Method, scorer: Scorer, adapter: Any, config: TrainingConfig) -> Objective:
    """Make the loss of a method.

    Args:
        method: What is learned by.
        scorer: Says how likely the model with its adapter finds a row.
        adapter: The PEFT model.
        config: Hyperparameters, the loss's own among them.
    """
    match method:
        case Method.SFT:
            return CompletionObjective(scorer, adapter)
        case Method.DPO:
            return PreferenceObjective(scorer, adapter, config.dpo_beta)
        case _:
            assert_never(method)


def _row_sums(values: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """(rows,); sums over successive stretches of a vector."""
    return torch.stack([part.sum() for part in torch.split(values, list(sizes))])
