"""Kernels that an operator launches on a CUDA device.

The rule: an operator that reaches the device is one kernel, a view or an allocation is none, and what PyTorch composes
of several below the level that is seen here has its number in `_COMPOSED`, counted in ATen's sources (aten/src/ATen,
`native/cuda` and `native/ReduceOps.cpp`). Operators over lists of tensors take as many as `multi_tensor_apply` needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# Allocate without writing, or only describe a tensor anew though the schema doesn't say so.
_ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
_VIEWS = frozenset({"_unsafe_view", "lift_fresh", "detach", "alias", "_reshape_alias", "is_pinned", "resize_", "set_"})

_COMPOSED = {
    "aten.baddbmm": 2,  # the input is copied first
    "aten._safe_softmax": 4,
    "aten._scaled_dot_product_efficient_attention_backward": 3,
    "aten._scaled_dot_product_flash_attention_backward": 3,  # row sums, gradients, and those of queries cast
    "aten._flash_attention_backward": 3,
    "aten.embedding_dense_backward": 5,  # sorts the indices
    "aten.index_add": 2,
    "aten.index_copy": 2,
    "aten.index_fill": 2,
    "aten.logsumexp": 9,  # amax, abs, eq, masked_fill, sub, exp, sum, log, add
    "aten.masked_fill": 2,
    "aten.multinomial": 5,
    "aten.nll_loss_backward": 2,
    "aten.nonzero": 3,
    "aten.scatter": 2,
    "aten.scatter_add": 2,
    "aten.slice_backward": 2,
    "aten.select_backward": 2,
    "aten.sort": 3,
    "aten.topk": 3,
    "torch_attn._varlen_attn_backward": 3,
}
# Tensors of a launch by the number of lists, and blocks of a launch (native/cuda/MultiTensorApply.cuh).
_TENSORS_OF_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
_BLOCKS_OF_LAUNCH = 320
_ELEMENTS_OF_BLOCK = 65_536


def name_of(operator: Any) -> str:
    """Return `aten.mm` of `aten.mm.default`."""
    return str(operator).rsplit(".", 1)[0]


def is_view(operator: Any) -> bool:
    """Return whether an operator launches nothing and gives a view of its input."""
    return bool(operator.is_view) or name_of(operator).removeprefix("aten.") in _VIEWS


def num_kernels(operator: Any, args: Sequence[Any]) -> int:
    """Return the kernels of a call whose tensors are on the device."""
    name = name_of(operator)
    plain = name.removeprefix("aten.")
    if operator.namespace in ("prim", "profiler") or plain in _ALLOCATIONS or is_view(operator):
        return 0
    if plain.startswith(("_foreach_", "_fused_adam", "_amp_foreach")):
        return _multi_tensor_launches(args)
    if plain in ("index_put", "index_put_", "_index_put_impl_"):
        return 6 if len(args) > 3 and args[3] else 1  # sums over sorted indices
    return _COMPOSED.get(name, 1)


def _multi_tensor_launches(args: Sequence[Any]) -> int:
    lists = [each for each in args if isinstance(each, list | tuple) and each and isinstance(each[0], torch.Tensor)]
    if not lists:
        return 1
    per_launch = _TENSORS_OF_LAUNCH[min(len(lists), max(_TENSORS_OF_LAUNCH))]
    num_blocks = sum(-(-tensor.numel() // _ELEMENTS_OF_BLOCK) for tensor in lists[0])
    launches: int = max(-(-len(lists[0]) // per_launch), -(-num_blocks // _BLOCKS_OF_LAUNCH))
    return launches
