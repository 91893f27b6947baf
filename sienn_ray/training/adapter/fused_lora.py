"""LoRA's linear layer as one step of automatic differentiation.

PEFT's own layer is four: two products, a scaling and an addition, each with tensors of its own, and in bfloat16 with
casts of the whole input and output besides. Here the adapter's part is added to the base layer's output in place, and
the gradients of both parts to one another. What is computed is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D

_ADAPTER = "default"


class _LoraProduct(torch.autograd.Function):
    """y = x W' + b + s (x A') B', with W fixed (Hu et al. 2021, arXiv:2106.09685, equation 3)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """X (..., in), weight (out, in), bias (out,), lora_a (r, in), lora_b (out, r); returns (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
        down = rows @ a.t()  # (rows, r)
        y = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        y.addmm_(down, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, weight, a, b, down)
        ctx.scaling, ctx.shape, ctx.adapter_dtype = scaling, x.shape, lora_a.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        rows, weight, a, b, down = ctx.saved_tensors
        grad_y = grad_outputs[0].reshape(-1, weight.shape[0])
        grad_down = (grad_y @ b).mul_(ctx.scaling)  # (rows, r)
        grad_a = (grad_down.t() @ rows).to(ctx.adapter_dtype)
        grad_b = (grad_y.t() @ down).to(ctx.adapter_dtype).mul_(ctx.scaling)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_y @ weight).addmm_(grad_down, a).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None


class FusedLoraLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer with a faster forward pass for plain LoRA without dropout; everything else is PEFT's."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if self.disable_adapters or self.merged or args or kwargs or not torch.is_grad_enabled():
            result: torch.Tensor = super().forward(x, *args, **kwargs)
            return result
        base = self.get_base_layer()
        weight = base.weight.t() if isinstance(base, Conv1D) else base.weight
        product: torch.Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            x,
            weight,
            base.bias,
            self.lora_A[_ADAPTER].weight,
            self.lora_B[_ADAPTER].weight,
            self.scaling[_ADAPTER],
        )
        return product


LAYERS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {torch.nn.Linear: FusedLoraLinear, Conv1D: FusedLoraLinear}
