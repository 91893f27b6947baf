"""Linear layers whose weights lie as the CPU reads them in a product.

A step of an engine is a product of few rows with every weight there is. Intel's MKL, which PyTorch calls, brings a
weight into blocks for that each time anew, which takes longer than the product; here that is done once. The operators
are those that PyTorch's own compiler uses for constant weights. A weight is packed for one number of rows and used for
all, which isn't promised to work, so each shape is tried out first, and where it doesn't work layers stay as they are.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from transformers.pytorch_utils import Conv1D

logger = logging.getLogger(__name__)

# Rows that a weight is packed for: as many as a step has that reads a prompt. Few rows are as fast as with one that is
# packed for few, and many are faster by a third; but a weight with few outputs is shared out badly among CPUs.
_PACKED_FOR = 256
_PACKED_FOR_IF_NARROW = 64
_NARROW = 512
# More are computed in pieces of this many.
_MOST_ROWS = 256
_TRIED_ROWS = (1, 2, 3, 5, 8, 13, 16, 31, 32, 64, 100, _MOST_ROWS)
_TOLERANCE = 1e-5


class PackedLinear(torch.nn.Module):
    """y = x W' + b in float32, over packed W.

    Args:
        weight: (out, in).
        bias: (out,), or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        num_rows = _PACKED_FOR_IF_NARROW if self.out_features < _NARROW else _PACKED_FOR
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), num_rows)
        # The operator wants the weight as well, for numbers of rows that it wasn't packed for, and looks at its shape.
        self.weight = weight.new_zeros((1, 1)).expand(weight.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if x.numel() // self.in_features <= _MOST_ROWS:
            return self._product(x.contiguous(), self.bias)
        pieces = torch.split(x.reshape(-1, self.in_features), _MOST_ROWS)
        y = torch.cat([self._product(piece, self.bias) for piece in pieces])
        return y.view(*x.shape[:-1], self.out_features)

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        num_rows = x.numel() // self.in_features
        y: torch.Tensor = torch.ops.mkl._mkl_linear(x, self._packed, self.weight, bias, num_rows)
        return y

    def matrix(self) -> torch.Tensor:
        """The weight, (out, in), exactly: what the layer makes of each unit vector."""
        units = torch.split(torch.eye(self.in_features), _MOST_ROWS)
        return torch.cat([self._product(rows, None) for rows in units]).t().contiguous()


@torch.inference_mode()
def packed(linear: torch.nn.Module) -> PackedLinear | None:
    """A linear layer (also of GPT-2's kind) over packed weights, or None where that can't be had.

    A class of its own may do more than the product.
    """
    if type(linear) not in (torch.nn.Linear, Conv1D):
        return None
    weight = linear.weight.detach()  # type: ignore[operator]
    weight = weight.t() if isinstance(linear, Conv1D) else weight
    if weight.device.type != "cpu" or weight.dtype is not torch.float32 or not _holds_for(*weight.shape):
        return None
    bias: torch.Tensor | None = linear.bias  # type: ignore[assignment]
    return PackedLinear(weight, None if bias is None else bias.detach())


@cache
def _holds_for(out_features: int, in_features: int) -> bool:
    """Whether a weight of this shape that is packed for one number of rows gives the right product for others."""
    if not torch._C.has_mkl or not hasattr(torch.ops.mkl, "_mkl_linear"):
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((out_features, in_features), generator=generator)
    layer = PackedLinear(weight, None)
    for num_rows in _TRIED_ROWS:
        x = torch.randn((num_rows, in_features), generator=generator)
        expected = F.linear(x, weight)
        if not torch.allclose(layer(x), expected, rtol=0.0, atol=_TOLERANCE * float(expected.abs().max())):
            logger.warning("packed weights of %d x %d give wrong products here", out_features, in_features)
            return False
    return True
