"""The scale of a loss whose gradients are computed in float16.

float16 has no numbers below 6e-8, where most gradients of a base model's activations would be zeros, and none above
65,504 (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2). So the loss is multiplied by a power of two, which
changes no digit of a gradient, and the adapter's gradients, which are float32, are divided by it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

_FIRST_SCALE = 2.0**16
# As many as PyTorch's own scaler waits for.
_CLEAN_STEPS = 2000


class LossScale:
    """Power of two that a loss is multiplied by; 1 unless the base model computes in float16.

    Where gradients overflow it is halved, and the step is computed again, so that none is lost. After 2,000 steps
    without that it is doubled, up to where it began.

    Args:
        dtype: Data type of the base model.
        value: The scale to begin with, that of a checkpoint; by default 65,536.
        clean_steps: Steps since it was changed, those of a checkpoint.
    """

    def __init__(self, dtype: torch.dtype, value: float | None = None, clean_steps: int = 0) -> None:
        self.is_used = dtype is torch.float16
        self.value = (value or _FIRST_SCALE) if self.is_used else 1.0
        self.clean_steps = clean_steps if self.is_used else 0

    def without_overflow(
        self, parameters: Sequence[torch.nn.Parameter], compute: Callable[[float], torch.Tensor]
    ) -> torch.Tensor:
        """Leave gradients in parameters as they would be without a scale.

        Args:
            parameters: Those that learn.
            compute: Computes their gradients of a loss that is multiplied by the number it is given, and returns sums
                of losses that aren't; the same on all workers, so that all of them halve together.
        """
        while True:
            result = compute(self.value)
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if not self.is_used or not gradients:
                return result
            is_clean = bool(torch.nn.utils.get_total_norm(gradients).isfinite())
            # At a scale of 1, or where the loss itself overflows, it isn't the scale that they overflow by.
            if is_clean or self.value <= 1.0 or not bool(result.isfinite().all()):
                torch._foreach_mul_(gradients, 1.0 / self.value)
                self._count(is_clean=is_clean)
                return result
            self.value /= 2.0
            self.clean_steps = 0
            for parameter in parameters:
                parameter.grad = None

    def _count(self, *, is_clean: bool) -> None:
        self.clean_steps = self.clean_steps + 1 if is_clean else 0
        if self.clean_steps >= _CLEAN_STEPS and self.value < _FIRST_SCALE:
            self.value *= 2.0
            self.clean_steps = 0
