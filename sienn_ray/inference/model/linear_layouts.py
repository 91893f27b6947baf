"""Memory layouts of a linear layer's weight, and the products that each layout has.

Which is fastest depends on the CPU, the shape and the number of rows. Intel's MKL packs a plain weight into blocks at
each call, which for few rows takes longer than the product; prepacked, that is done once. oneDNN packs otherwise. A
single row's product with a plain weight is left to one CPU by MKL; cut into as many parts as there are threads, it is a
batched product, which all CPUs share. All are PyTorch's operators; those for packed weights are its own compiler's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812

# (rows, in) to a new (rows, out), without the bias.
Product = Callable[[torch.Tensor], torch.Tensor]

# Rows that MKL packs a weight for: as many as a step has with a chunk of a prefill. Few rows are as fast as with one
# that is packed for few, and many are faster by a third; but a weight with few outputs is badly shared among CPUs.
_MKL_ROWS = 256
_MKL_ROWS_IF_NARROW = 64
_NARROW = 512
_ONEDNN_ROWS = 16


class PlainLayout:
    """The weight as (out, in), as the model has it.

    Args:
        weight: (out, in), contiguous.
        num_threads: Parts of a product that is cut.
    """

    def __init__(self, weight: torch.Tensor, num_threads: int) -> None:
        self.weight = weight
        self.products: Mapping[str, Product] = {"whole": self._whole}
        if num_threads > 1 and weight.shape[0] % num_threads == 0:
            self._parts = weight.view(num_threads, -1, weight.shape[1])
            self._turned_parts = self._parts.transpose(1, 2)
            self.products = {**self.products, "parts": self._in_parts, "turned parts": self._in_turned_parts}

    def _whole(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)

    def _in_parts(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.bmm(x.expand(len(self._parts), *x.shape), self._turned_parts)  # (parts, rows, out / parts)
        return y.view(1, -1) if len(x) == 1 else y.transpose(0, 1).reshape(len(x), -1)

    def _in_turned_parts(self, x: torch.Tensor) -> torch.Tensor:
        num_rows, in_features = x.shape
        y = torch.bmm(self._parts, x.t().expand(len(self._parts), in_features, num_rows))  # (parts, out / parts, rows)
        return y.view(1, -1) if num_rows == 1 else y.view(-1, num_rows).t().contiguous()


class MklLayout:
    """The weight packed by MKL for one number of rows and used for all, which MKL doesn't promise to be right."""

    def __init__(self, weight: torch.Tensor, num_threads: int) -> None:  # noqa: ARG002
        rows = _MKL_ROWS_IF_NARROW if weight.shape[0] < _NARROW else _MKL_ROWS
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        # The operator wants the weight as well, for numbers of rows that it wasn't packed for, and looks at its shape.
        self.weight = weight.new_zeros((1, 1)).expand(weight.shape)
        self.products: Mapping[str, Product] = {"packed": self._product}

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkl._mkl_linear(x, self._packed, self.weight, None, len(x))
        return y


class OneDnnLayout:
    """The weight packed by oneDNN."""

    def __init__(self, weight: torch.Tensor, num_threads: int) -> None:  # noqa: ARG002
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ONEDNN_ROWS)
        self.weight = weight.new_zeros((1, 1)).expand(weight.shape)
        self.products: Mapping[str, Product] = {"packed": self._product}

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        return y


Layout = PlainLayout | MklLayout | OneDnnLayout


def available_layouts() -> dict[str, type[Layout]]:
    """Return the layouts that this build of PyTorch has operators for, by name."""
    found: dict[str, type[Layout]] = {"plain": PlainLayout}
    if torch._C.has_mkl and hasattr(torch.ops.mkl, "_mkl_linear"):
        found["mkl"] = MklLayout
    if torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        found["onednn"] = OneDnnLayout
    return found
