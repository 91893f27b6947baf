"""Linear layers with weights in the layout that the CPU multiplies fastest by the few rows of a decoding step."""

from __future__ import annotations

import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.model.linear_choice import MAX_ROWS, Choice, LinearChoices
from sienn_ray.inference.model.linear_layouts import available_layouts


class PackedLinear(torch.nn.Module):
    """y = x W' + b in float32.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        choice: Layout and products.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, choice: Choice) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        layout = available_layouts()[choice.layout](weight.contiguous(), torch.get_num_threads())
        self._products = choice.products_of(layout)
        # Where it is packed, only its shape is there.
        self.weight = layout.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute (..., in) to (..., out)."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) <= MAX_ROWS:
            y = self._products[len(rows).bit_length()](rows)
        else:
            y = torch.cat([self._products[len(piece).bit_length()](piece) for piece in torch.split(rows, MAX_ROWS)])
        if self.bias is not None:
            y.add_(self.bias)
        return y if x.dim() == y.dim() else y.view(*x.shape[:-1], self.out_features)

    def matrix(self) -> torch.Tensor:
        """Return the weight, (out, in), exactly: the layer's outputs for all unit vectors."""
        units = torch.split(torch.eye(self.in_features), MAX_ROWS)
        rows = [self._products[len(piece).bit_length()](piece) for piece in units]
        return torch.cat(rows).t().contiguous()


@torch.inference_mode()
def packed(linear: torch.nn.Module, choices: LinearChoices) -> PackedLinear | None:
    """Pack a linear layer (GPT-2's `Conv1D` too) as the choices say, or return None where it is best as it is.

    Subclasses stay as they are, since they may compute more than the product.
    """
    if type(linear) not in (torch.nn.Linear, Conv1D):
        return None
    weight = linear.weight.detach()  # type: ignore[operator]
    weight = weight.t() if isinstance(linear, Conv1D) else weight
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return None
    choice = choices.choose(*weight.shape)
    bias: torch.Tensor | None = linear.bias  # type: ignore[assignment]
    return None if choice is None else PackedLinear(weight, None if bias is None else bias.detach(), choice)
