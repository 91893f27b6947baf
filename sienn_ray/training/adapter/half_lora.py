"""LoRA's linear layer in half precision, with as few kernel launches as there are products.

The adapter is float32, its products are the base layer's type. Here A and B come in that type already, the scaling is a
factor that the products take along, and gradients are written in float32 by the products themselves, where the device's
products can. So a layer is 3 launches forward and 5 backward.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from sienn_ray.training.adapter.frozen_weight import FrozenWeight, keep_weight, kept_weight, matrix_of

HALF_TYPES = (torch.bfloat16, torch.float16)

# Whether this PyTorch's products on a GPU can give another type than they take.
_WRITES_OTHER_TYPES = hasattr(torch.ops.aten.mm, "dtype")

# A (r, in) and B (out, r).
Factors = tuple[torch.Tensor, torch.Tensor]


def half_lora_product(
    x: torch.Tensor,
    weight: FrozenWeight,
    bias: torch.Tensor | None,
    factors: Factors,
    copies: Factors,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return x W' + b + s drop(x) A' B', with W fixed.

    Args:
        x: (..., in), in half precision.
        weight: (out, in) in the same type, or in 4 bits.
        bias: (out,), likewise.
        factors: The adapter's weights in float32, which get the gradients.
        copies: The same in the type of `x`, which are computed with.
        scaling: s.
        dropout: Probability that an input of the adapter is dropped.

    Returns:
        (..., out).
    """
    rows = x.reshape(-1, x.shape[-1])
    product: torch.Tensor = _HalfLoraProduct.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, *factors, *copies, scaling, dropout
    )
    return product.view(*x.shape[:-1], -1)


class _HalfLoraProduct(torch.autograd.Function):
    """See `half_lora_product`; all products are of two matrices."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: FrozenWeight,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,  # noqa: ARG004 # it gets a gradient
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        """Rows (rows, in) to (rows, out)."""
        kept, dropped = None, rows
        if dropout:
            dropped, kept = torch.native_dropout(rows, dropout, True)
        down = _scaled_product(dropped, a.t(), scaling)  # (rows, r)
        matrix = matrix_of(weight, rows.dtype)
        y = rows @ matrix.t() if bias is None else torch.addmm(bias, rows, matrix.t())
        y.addmm_(down, b.t())
        keep_weight(ctx, weight, rows, a, b, down, kept)
        ctx.scaling, ctx.dropout_factor, ctx.adapter_dtype = scaling, 1.0 / (1.0 - dropout), lora_a.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the rows, A and B."""
        weight, rows, a, b, down, kept = kept_weight(ctx, grad_outputs[0].dtype)
        grad_y = grad_outputs[0]
        grad_down = _scaled_product(grad_y, b, ctx.scaling)  # (rows, r)
        grad_b = _product_as(ctx.adapter_dtype, grad_y.t(), down)
        # What was dropped is dropped again rather than kept.
        dropped = rows if kept is None else _drop(rows, kept, ctx.dropout_factor)
        grad_a = _product_as(ctx.adapter_dtype, grad_down.t(), dropped)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_y @ weight
            if kept is None:
                grad_x.addmm_(grad_down, a)
            else:
                grad_x += _drop(grad_down @ a, kept, ctx.dropout_factor)
        return grad_x, None, None, grad_a, grad_b, None, None, None, None


def _scaled_product(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply two matrices and a number in one launch: the tensor that is added counts nothing, and isn't read."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=factor)


def _product_as(dtype: torch.dtype, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices in half precision; the sums, which are float32, aren't rounded where a GPU computes."""
    if left.device.type == "cuda" and _WRITES_OTHER_TYPES:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def _drop(tensor: torch.Tensor, kept: torch.Tensor, factor: float) -> torch.Tensor:
    """Drop the elements that were dropped before; the gradient of dropout is dropout."""
    dropped: torch.Tensor = torch.ops.aten.native_dropout_backward(tensor, kept, factor)
    return dropped


class AdapterCopies:
    """The adapter's weights in half precision, made once for all micro batches of a step.

    Args:
        parameters: The weights in float32.
        dtype: What they are kept in.

    Attributes:
        copies: In the order of `parameters`; views of one tensor.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], dtype: torch.dtype) -> None:
        self._parameters = list(parameters)
        sizes = [parameter.numel() for parameter in self._parameters]
        flat = torch.empty(sum(sizes), dtype=dtype, device=self._parameters[0].device)
        parts = zip(torch.split(flat, sizes), self._parameters, strict=True)
        self.copies = [part.view(parameter.shape) for part, parameter in parts]
        self.refresh()

    @torch.no_grad()
    def refresh(self, *_: object) -> None:
        """Copy the weights as they are now; optimizers call it after a step."""
        torch._foreach_copy_(self.copies, self._parameters)
