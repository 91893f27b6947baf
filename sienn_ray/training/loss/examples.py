"""Examples: the tokenized rows that a loss takes together, and what it gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sienn_ray.training.loss.packing import TokenRow


class Example(NamedTuple):
    """Rows that belong together.

    Args:
        rows: One, or a chosen and a rejected one.
        is_desirable: The label of an answer that isn't compared with another one.
    """

    rows: tuple[TokenRow, ...]
    is_desirable: bool = True

    @property
    def num_tokens(self) -> int:
        """Tokens of all its rows."""
        return sum(len(input_ids) for input_ids, _ in self.rows)


def rows_of(examples: Sequence[Example]) -> list[TokenRow]:
    """Return the rows of all examples, one after another."""
    return [row for example in examples for row in example.rows]


class LossSums(NamedTuple):
    """Sums over examples.

    Args:
        loss: Scalar float32.
        rewards: (6,) float32 without gradient, in the order of `RewardSums`; None of a loss without rewards.
    """

    loss: torch.Tensor
    rewards: torch.Tensor | None = None
