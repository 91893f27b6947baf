"""LoRA's linear layer as one step of automatic differentiation.

PEFT's own layer is four: two products, a scaling and an addition, each with tensors of its own, and in bfloat16 with
casts of the whole input and output besides. Here the adapter's part is added to the base layer's output in place, and
the gradients of both parts to one another. What is computed is the same. `half_lora` has the same for GPUs.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D

from sienn_ray.training.adapter.half_lora import HALF_TYPES, Factors, half_lora_product

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
    """PEFT's LoRA layer with a faster forward pass for plain LoRA; everything else is PEFT's.

    Attributes:
        copies: A and B in the base layer's data type, where they are kept; see `AdapterCopies`.
    """

    copies: Factors | None = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(..., in) to (..., out)."""
        is_half = x.dtype in HALF_TYPES and (x.device.type == "cuda" or self.copies is not None)
        is_fused = is_half or (torch.is_grad_enabled() and not self._dropout())
        if self.disable_adapters or self.merged or args or kwargs or not is_fused:
            result: torch.Tensor = super().forward(x, *args, **kwargs)
            return result
        base = self.get_base_layer()
        weight = base.weight.t() if isinstance(base, Conv1D) else base.weight
        factors, scaling = self.factors, self.scaling[_ADAPTER]
        if not is_half:
            product: torch.Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
                x, weight, base.bias, *factors, scaling
            )
            return product
        # Without gradients it may be other weights that are looked at for a while, see `Reference`.
        kept = self.copies if torch.is_grad_enabled() else None
        copies = kept or (factors[0].to(x.dtype), factors[1].to(x.dtype))
        return half_lora_product(x, weight, base.bias, factors, copies, scaling, self._dropout())

    @property
    def factors(self) -> Factors:
        """A and B."""
        return self.lora_A[_ADAPTER].weight, self.lora_B[_ADAPTER].weight

    def _dropout(self) -> float:
        """Probability that an input of the adapter is dropped now."""
        dropout = self.lora_dropout[_ADAPTER]
        return float(dropout.p) if self.training and isinstance(dropout, torch.nn.Dropout) else 0.0


LAYERS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {torch.nn.Linear: FusedLoraLinear, Conv1D: FusedLoraLinear}
