"""Attention over packed rows by one kernel for all of them: variable-length attention, which GPUs have.

FlashAttention takes queries and keys of all rows in one tensor each, and where rows begin as cumulative lengths
(Dao 2023, arXiv:2307.08691). Its causal mask is aligned to a row's last token, so a row's queries may be fewer than its
keys: those of its own tokens, behind what it shares with others, whose keys are gathered for it. So the launches of a
layer don't grow with the rows of a pack, and lengths are tensors, which a compiled layer needn't be compiled again for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Any, Protocol, cast

import torch
from transformers import AttentionInterface

from sienn_ray.training.loss.packing import Pieces

NAME = "sienn_varlen"

# What FlashAttention computes in, and the sizes of heads that it has kernels for.
_DTYPES = (torch.bfloat16, torch.float16)
_MAX_HEAD_SIZE = 256
_HEAD_SIZE_STEP = 8
# Of a GPU: Ampere, the first that FlashAttention 2 runs on.
_MIN_CAPABILITY = (8, 0)
# What transformers' configurations call the dropout of attention weights, which the kernel has none of.
_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


class Kernel(Protocol):
    """`torch.nn.attention.varlen.varlen_attn` as PyTorch 2.11 has it."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
    ) -> torch.Tensor:
        """Attend within rows.

        Args:
            query: (queries, heads, head size).
            key: (keys, key heads, head size); fewer heads are shared.
            value: As `key`.
            cu_seq_q: (rows + 1,) int32; where the queries of rows begin and end.
            cu_seq_k: (rows + 1,) int32; where their keys do.
            max_q: Queries of the row that has most.
            max_k: Keys of the row that has most.
            scale: Factor of the scores; None is one over the root of the head size.
            window_size: Keys that are seen before and behind a query's own; -1 are all.

        Returns:
            (queries, heads, head size).
        """
        ...


def installed_kernel() -> Kernel | None:
    """Return PyTorch's kernel; None before 2.11, where it has no sliding window and no scale."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    parameters = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= parameters.keys():
        return None
    # From 2.12 on it wants to be told that key heads are shared; before, the kernel sees it.
    kernel: Any = partial(varlen_attn, enable_gqa=True) if "enable_gqa" in parameters else varlen_attn
    return cast(Kernel, kernel)


def kernel_for(model: Any) -> Kernel | None:
    """Return the kernel where the model's device, data type and configuration suit it, else None.

    Args:
        model: A causal LM on the device that it computes on.
    """
    if model.device.type != "cuda" or torch.cuda.get_device_capability(model.device) < _MIN_CAPABILITY:
        return None
    return installed_kernel() if suits(model.config.get_text_config(), model.dtype) else None


def suits(config: object, dtype: torch.dtype) -> bool:
    """Return whether the kernel computes what a base model's attention does, as far as its configuration tells.

    Args:
        config: The base model's transformers configuration.
        dtype: Its data type.
    """
    num_heads = int(getattr(config, "num_attention_heads", 0) or 0)
    head_size = int(getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(num_heads, 1))
    if dtype not in _DTYPES or not 0 < head_size <= _MAX_HEAD_SIZE or head_size % _HEAD_SIZE_STEP:
        return False
    return not any(getattr(config, name, None) for name in _DROPOUTS)


def register(kernel: Kernel) -> None:
    """Make `NAME` known to transformers, with this kernel. It has no mask function, so no mask is made."""
    AttentionInterface.register(NAME, attention_with(kernel))


def inputs_of(pieces: Pieces, device: torch.device) -> dict[str, Any]:
    """Make the arguments that attention needs of a pack; once for a batch, since all layers share them.

    They have the names that transformers gives them (`FlashAttentionKwargs`), but for `key_places`: (keys,) int64, the
    places of all rows' keys in the sequence, None where each token is a key of its own row only.

    Example:
        >>> found = inputs_of(Pieces((2, 1, 3), ((0, 1), (0, 2))), torch.device("cpu"))
        >>> found["cu_seq_lens_q"].tolist(), found["cu_seq_lens_k"].tolist(), found["key_places"].tolist()
        ([0, 3, 6], [0, 3, 8], [0, 1, 2, 0, 1, 3, 4, 5])
    """
    num_done = 0
    queries: list[int] = []
    for row in pieces.chains:
        queries.append(sum(pieces.sizes[number] for number in row if number >= num_done))
        num_done = row[-1] + 1
    keys = [sum(pieces.sizes[number] for number in row) for row in pieces.chains]
    starts = _cumulative(queries, device)
    inputs = {"cu_seq_lens_q": starts, "max_length_q": max(queries), "max_length_k": max(keys)}
    if keys == queries:
        return {**inputs, "cu_seq_lens_k": starts, "key_places": None}
    spans = [range(*ends) for ends in pairwise(accumulate(pieces.sizes, initial=0))]
    places = list(chain.from_iterable(spans[number] for row in pieces.chains for number in row))
    return {
        **inputs,
        "cu_seq_lens_k": _cumulative(keys, device),
        "key_places": torch.tensor(places, device=device),
    }


def _cumulative(sizes: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(list(accumulate(sizes, initial=0)), dtype=torch.int32, device=device)


def attention_with(kernel: Kernel) -> Callable[..., tuple[torch.Tensor, None]]:
    """Make a function that transformers takes as an attention, from a kernel."""

    def varlen_attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,  # noqa: ARG001
        *,
        cu_seq_lens_q: torch.Tensor,
        cu_seq_lens_k: torch.Tensor,
        max_length_q: int,
        max_length_k: int,
        key_places: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attend within rows; shapes are those of `packed_attention`, lengths those of `inputs_of`."""
        if dropout or softcap is not None:
            raise ValueError(f"{NAME} has no dropout ({dropout}) and no softcap ({softcap}); use sienn_packed")
        query, key, value = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
        if key_places is not None:
            key, value = key.index_select(0, key_places), value.index_select(0, key_places)
        window = sliding_window if getattr(module, "is_causal", True) else None
        attended = kernel(
            query,
            key,
            value,
            cu_seq_lens_q,
            cu_seq_lens_k,
            max_length_q,
            max_length_k,
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),
        )
        return attended.unsqueeze(0), None

    return varlen_attention
