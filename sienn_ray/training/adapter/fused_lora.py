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

from sienn_ray.training.adapter.frozen_weight import FrozenWeight, keep_weight, kept_weight, matrix_of
from sienn_ray.training.adapter.half_lora import HALF_TYPES, Factors, half_lora_product

_ADAPTER = "default"


class _LoraProduct(torch.autograd.Function):
    """y = x W' + b + s (x A') B', with W fixed (Hu et al. 2021, arXiv:2106.09685, equation 3)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: FrozenWeight,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """X (..., in), weight (out, in), bias (out,), lora_a (r, in), lora_b (out, r); returns (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
        down = rows @ a.t()  # (rows, r)
        matrix = matrix_of(weight, x.dtype)
        y = rows @ matrix.t() if bias is None else torch.addmm(bias, rows, matrix.t())
        y.addmm_(down, b.t(), alpha=scaling)
        keep_weight(ctx, weight, rows, a, b, down)
        ctx.scaling, ctx.shape, ctx.adapter_dtype = scaling, x.shape, lora_a.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        weight, rows, a, b, down = kept_weight(ctx, grad_outputs[0].dtype)
        grad_y = grad_outputs[0].reshape(-1, weight.shape[0])
        grad_down = (grad_y @ b).mul_(ctx.scaling)  # (rows, r)
        grad_a = (grad_down.t() @ rows).to(ctx.adapter_dtype)
        grad_b = (grad_y.t() @ down).to(ctx.adapter_dtype).mul_(ctx.scaling)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_y @ weight).addmm_(grad_down, a).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None


class FusedLora:
    """A faster forward pass of PEFT's LoRA layers for plain LoRA; everything else is PEFT's.

    Attributes:
        copies: A and B in the type of the products, where they are kept; see `AdapterCopies`.
    """

    copies: Factors | None = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(..., in) to (..., out)."""
        layer: Any = self  # PEFT's, beside this class
        is_half = x.dtype in HALF_TYPES and (x.device.type == "cuda" or self.copies is not None)
        is_fused = is_half or (torch.is_grad_enabled() and not self._dropout())
        if layer.disable_adapters or layer.merged or args or kwargs or not is_fused:
            result: torch.Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return result
        weight, bias = self.frozen_weight(), layer.get_base_layer().bias
        factors, scaling = self.factors, layer.scaling[_ADAPTER]
        if not is_half:
            product: torch.Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
                x, weight, bias, *factors, scaling
            )
            return product
        # Without gradients it may be other weights that are looked at for a while, see `Reference`.
        kept = self.copies if torch.is_grad_enabled() else None
        copies = kept or (factors[0].to(x.dtype), factors[1].to(x.dtype))
        return half_lora_product(x, weight, bias, factors, copies, scaling, self._dropout())

    def frozen_weight(self) -> FrozenWeight:
        """Return the base layer's weight."""
        base = self.get_base_layer()  # type: ignore[attr-defined]
        weight: torch.Tensor = base.weight.t() if isinstance(base, Conv1D) else base.weight
        return weight

    @property
    def compute_dtype(self) -> torch.dtype:
        """Data type of the base layer's product."""
        dtype: torch.dtype = self.get_base_layer().weight.dtype  # type: ignore[attr-defined]
        return dtype

    @property
    def factors(self) -> Factors:
        """A and B."""
        layer: Any = self
        return layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight

    def _dropout(self) -> float:
        """Probability that an input of the adapter is dropped now."""
        layer: Any = self
        dropout = layer.lora_dropout[_ADAPTER]
        return float(dropout.p) if layer.training and isinstance(dropout, torch.nn.Dropout) else 0.0


class FusedLoraLinear(FusedLora, Linear):  # type: ignore[misc]
    """PEFT's LoRA layer over a whole weight, with the forward pass of `FusedLora`."""


LAYERS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {torch.nn.Linear: FusedLoraLinear, Conv1D: FusedLoraLinear}
