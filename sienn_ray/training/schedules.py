"""Learning rate schedules: a linear rise, then one of three ways to go on."""

from __future__ import annotations

import math
from collections.abc import Callable

from sienn_ray.training.config import LrScheduler


def _cosine(share_done: float) -> float:
    """Half a cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * share_done))


def _linear(share_done: float) -> float:
    """A straight line to zero."""
    return 1.0 - share_done


def _constant(share_done: float) -> float:  # noqa: ARG001
    """No change."""
    return 1.0


_AFTER_WARMUP: dict[LrScheduler, Callable[[float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}


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
        return _AFTER_WARMUP[self._kind](min(share_done, 1.0))
