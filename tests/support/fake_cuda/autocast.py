"""Automatic casts of a CUDA device, done in Python: a build without CUDA takes no fake for a CUDA tensor there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

# The parts of PyTorch's lists (torch/amp, "CUDA Ops that can autocast") that decoder layers and losses use.
_LOWER = {
    F.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm,
    torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm, torch.Tensor.bmm,
}  # fmt: skip
_FLOAT32 = {
    F.cross_entropy, F.nll_loss, torch.logsumexp, torch.exp, torch.log, torch.rsqrt, torch.pow, torch.cumsum,
    torch.Tensor.logsumexp, torch.Tensor.exp, torch.Tensor.log, torch.Tensor.rsqrt, torch.Tensor.pow,
    torch.Tensor.cumsum,
}  # fmt: skip


class Autocast:
    """Casts arguments as autocast does, weights once for each context.

    Args:
        is_fake: Tells tensors on the device.
    """

    def __init__(self, is_fake: Callable[[Any], bool]) -> None:
        self._is_fake = is_fake
        self._weights: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def cast(self, func: Any, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments that a function gets."""
        if not torch.is_autocast_enabled("cuda"):
            self._weights.clear()
            return args
        if func in _LOWER:
            return [self._cast(each, torch.get_autocast_dtype("cuda")) for each in args]
        if func in _FLOAT32:
            return [self._cast(each, torch.float32) for each in args]
        return args

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not self._is_fake(value) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not (value.requires_grad and value.is_leaf and dtype is not torch.float32 and torch.is_grad_enabled()):
            return value.to(dtype)
        if id(value) not in self._weights:  # with the weight, whose id is taken by no other then
            self._weights[id(value)] = (value, value.to(dtype))
        return self._weights[id(value)][1]
