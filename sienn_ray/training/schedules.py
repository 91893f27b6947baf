"""Learning rate schedules: a linear rise, then one of three ways to go on."""

from __future__ import annotations

import math
from typing import assert_never

from sienn_ray.training.config import LrScheduler


def _after_warmup(kind: LrScheduler, share_done: float) -> float:
    """Factor of the learning rate once it has risen, by the share of the later steps that are done."""
    match kind:
        case "cosine":  # half a cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983)
            return 0.5 * (1.0 + math.cos(math.pi * share_done))
        case "linear":
            return 1.0 - share_done
        case "constant":
            return 1.0
        case _:
            assert_never(kind)


class Schedule:
    """Learning rate factor of each optimizer step.

    The first step already learns: its factor is the first rung of the rise, not zero as in transformers' schedules.
    After the rise both are the same.

    Args:
        kind: How it goes on after the rise.
        warmup_ratio: Share of the steps that rise; at least one step is left after them.
        num_steps: Optimizer steps of the whole run.
    """

    def __init__(self, kind: LrScheduler, warmup_ratio: float, num_steps: int) -> None:
        self._kind = kind
        self._num_steps = num_steps
        self._num_warmup = min(math.ceil(warmup_ratio * num_steps), max(num_steps - 1, 0))

    @property
    def num_warmup_steps(self) -> int:
        """Steps below the full learning rate at the start."""
        return self._num_warmup

    def __call__(self, step: int) -> float:
        """Factor for the step that comes after `step` steps are done."""
        if step < self._num_warmup:
            return (step + 1) / (self._num_warmup + 1)
        share_done = (step - self._num_warmup) / max(1, self._num_steps - self._num_warmup)
        return _after_warmup(self._kind, min(share_done, 1.0))
