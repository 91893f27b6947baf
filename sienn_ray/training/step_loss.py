"""The loss of an optimizer step: sums that stay on the device until the step's end, and their means.

Reading a number from a GPU waits until all that was queued for it is done, and meanwhile nothing new is queued. So sums
are added up there, and read once a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sienn_ray.training.loss.examples import LossSums
from sienn_ray.training.rewards import NO_REWARDS, RewardSums

_NUM_SUMS = 1 + len(RewardSums._fields)


class StepLoss(NamedTuple):
    """Loss and tokens of one optimizer step, over all workers.

    Args:
        mean: Loss per completion token in nats, or per preference pair; NaN of no examples.
        weight: Completion tokens, pairs, or labelled answers.
        num_tokens: All tokens of the rows.
        rewards: Of the answers, where the loss has rewards.
    """

    mean: float
    weight: int
    num_tokens: int
    rewards: RewardSums = NO_REWARDS


class RunningSums:
    """Sums over micro batches, in float64 as Python would add them up.

    Args:
        device: Where micro batches are computed.

    Attributes:
        values: (7,) float64; the loss, and then the fields of `RewardSums`, zeros of a loss without rewards.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(_NUM_SUMS, dtype=torch.float64, device=device)

    def add(self, sums: LossSums) -> None:
        """Add those of a micro batch."""
        self.values[0] += sums.loss.detach()
        if sums.rewards is not None:
            self.values[1:] += sums.rewards


@dataclass(frozen=True)
class UnreadStepLoss:
    """Loss and tokens of one optimizer step on the device, before anything has waited for it.

    Args:
        sums: (7,) float64; see `RunningSums`, over all workers.
        weight: See `StepLoss`.
        num_tokens: See `StepLoss`.
    """

    sums: torch.Tensor
    weight: int
    num_tokens: int

    def read(self, norm: torch.Tensor | None) -> tuple[StepLoss, float]:
        """Wait for the step and return its loss, and the gradient's norm, 0 of None."""
        last = self.sums.new_zeros(1) if norm is None else norm.to(self.sums).reshape(1)
        loss, *rewards, norm_value = torch.cat([self.sums, last]).tolist()
        mean = loss / self.weight if self.weight else math.nan
        return StepLoss(mean, self.weight, self.num_tokens, RewardSums(*rewards)), norm_value
