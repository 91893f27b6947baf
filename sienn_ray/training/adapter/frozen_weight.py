"""Weights of a base model's linear layers, as they are or in 4 bits."""

from __future__ import annotations

from typing import Any

import torch


class QuantizedWeight:
    """A weight that bitsandbytes keeps in 4 bits, and that a product makes whole for as long as it takes.

    Args:
        layer: bitsandbytes' `Linear4bit`.
    """

    def __init__(self, layer: Any) -> None:
        self._packed: torch.Tensor = layer.weight.data
        self._state = layer.weight.quant_state
        self._shape = (int(layer.out_features), int(layer.in_features))

    def matrix(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight as (out, in) of a data type."""
        from bitsandbytes.functional import dequantize_4bit

        whole: torch.Tensor = dequantize_4bit(self._packed, self._state)
        return whole.view(self._shape).to(dtype)


# (out, in).
FrozenWeight = torch.Tensor | QuantizedWeight


def matrix_of(weight: FrozenWeight, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight as a matrix of a data type."""
    return weight.matrix(dtype) if isinstance(weight, QuantizedWeight) else weight


def keep_weight(ctx: Any, weight: FrozenWeight, *others: torch.Tensor | None) -> None:
    """Save a weight, in 4 bits where it is, and other tensors for the backward pass."""
    is_whole = isinstance(weight, torch.Tensor)
    ctx.quantized = None if is_whole else weight
    ctx.save_for_backward(weight if is_whole else None, *others)


def kept_weight(ctx: Any, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return the weight as a matrix, and the other tensors, that `keep_weight` saved."""
    weight, *others = ctx.saved_tensors
    return (weight if ctx.quantized is None else ctx.quantized.matrix(dtype), *others)
