"""Linear layers whose weights lie as the CPU reads them fastest in a product of few rows, which a decoding step is."""

from __future__ import annotations

import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.linear_choice import MAX_ROWS, Choice, LinearChoices
from sienn_ray.inference.linear_layouts import available_layouts


class PackedLinear(torch.nn.Module):
    """y = x W' + b in float32.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        choice: How to compute it.
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
        """(..., in) to (..., out)."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) <= MAX_ROWS:
            y = self._products[len(rows).bit_length()](rows)
        else:
            y = torch.cat([self._products[len(piece).bit_length()](piece) for piece in torch.split(rows, MAX_ROWS)])
        if self.bias is not None:
            y.add_(self.bias)
        return y if x.dim() == y.dim() else y.view(*x.shape[:-1], self.out_features)

    def matrix(self) -> torch.Tensor:
        """The weight, (out, in), exactly: what the layer makes of each unit vector."""
        units = torch.split(torch.eye(self.in_features), MAX_ROWS)
        rows = [self._products[len(piece).bit_length()](piece) for piece in units]
        return torch.cat(rows).t().contiguous()


@torch.inference_mode()
def packed(linear: torch.nn.Module, choices: LinearChoices) -> PackedLinear | None:
    """A linear layer (also of GPT-2's kind) as it is computed fastest, or None where it had better stay as it is.

    A class of its own may do more than the product.
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
