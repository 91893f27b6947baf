"""The scale of a loss whose gradients are computed in float16.

float16 has no numbers below 6e-8, where most gradients of a base model's activations would be zeros, and none above
65,504 (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2). So the loss is multiplied by a power of two, which
changes no digit of a gradient, and the adapter's gradients, which are float32, are divided by it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")

_FIRST_SCALE = 2.0**16


class LossScale:
    """Power of two that a loss is multiplied by; 1 unless the base model computes in float16.

    Where gradients overflow it is halved, and the step is computed again, so that none is lost.

    Args:
        dtype: Data type of the base model.
        value: The scale to begin with, that of a checkpoint; by default 65,536.
    """

    def __init__(self, dtype: torch.dtype, value: float | None = None) -> None:
        self.is_used = dtype is torch.float16
        self.value = (value or _FIRST_SCALE) if self.is_used else 1.0

    def without_overflow(self, parameters: Sequence[torch.nn.Parameter], compute: Callable[[float], T]) -> T:
        """Leave gradients in parameters as they would be without a scale.

        Args:
            parameters: Those that learn.
            compute: Computes their gradients of a loss that is multiplied by the number it is given; the same gradients
                on all workers, so that all of them halve together.
        """
        while True:
            result = compute(self.value)
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if not self.is_used or not gradients:
                return result
            # At a scale of 1 it isn't the scale that they overflow by.
            if self.value <= 1.0 or bool(torch.nn.utils.get_total_norm(gradients).isfinite()):
                torch._foreach_mul_(gradients, 1.0 / self.value)
                return result
            self.value /= 2.0
            for parameter in parameters:
                parameter.grad = None
