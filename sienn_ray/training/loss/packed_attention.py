"""Attention over packed rows, one after another: each row attends to its own pieces, causally, and to nothing else.

transformers takes attention functions by name and hands them whatever else the forward pass was given, here
`pieces`. A row's products are its own, so no work is done for pairs of rows, and no mask is made. It is for CPUs, and
for what `varlen_attention` has no kernel for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from sienn_ray.training.loss.packing import Pieces

NAME = "sienn_packed"

# Queries whose bounded scores a GPU holds at once: 16 MiB a head for a row of 8,192 tokens.
_SOFTCAP_BLOCK = 512


def register() -> None:
    """Make `NAME` known to transformers; a repeat changes nothing. It has no mask function, so no mask is made."""
    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    pieces: Pieces,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within rows.

    Args:
        module: The attention layer.
        query: (1, heads, tokens, head size).
        key: (1, key heads, tokens, head size); fewer heads are shared (grouped-query attention).
        value: As `key`.
        attention_mask: None; `pieces` say it all.
        pieces: How the tokens divide into rows.
        dropout: Probability that an attention weight is dropped.
        scaling: Factor of the scores; None is one over the root of the head size.
        sliding_window: Tokens that a token sees back, itself included.
        softcap: Bound of the scores (Gemma 2).

    Returns:
        (1, tokens, heads, head size), and no weights.
    """
    window = sliding_window if sliding_window is not None and getattr(module, "is_causal", True) else None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1 and not (_takes_groups(query) and window is None and softcap is None):
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    # Split rather than sliced: the gradient of slices would be a full tensor for each.
    split = list(zip(*(torch.split(tensor, list(pieces.sizes), dim=2) for tensor in (query, key, value)), strict=True))

    def attend(row: Sequence[torch.Tensor]) -> torch.Tensor:
        return _causal(*row, dropout=dropout, scaling=scaling, window=window, softcap=softcap)

    outputs: list[torch.Tensor] = []
    num_done = 0
    for chain in pieces.chains:
        # What the row shares with others before it is done again with it: so it is plainly causal, which has the
        # fastest kernels.
        row = [torch.cat(tensors, dim=2) for tensors in zip(*(split[number] for number in chain), strict=True)]
        num_shared = sum(pieces.sizes[number] for number in chain if number < num_done)
        outputs.append(attend(row)[:, :, num_shared:])
        num_done = chain[-1] + 1
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _takes_groups(query: torch.Tensor) -> bool:
    """Return whether PyTorch's kernel takes fewer key heads than query heads.

    Only FlashAttention does, which on a GPU is what there is for bfloat16, and which has no masks.
    """
    return query.device.type == "cuda" and query.dtype is torch.bfloat16


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    dropout: float,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """One row's attention; all are (1, heads, tokens, head size), `key` and `value` with fewer heads where they may."""
    num_tokens = query.shape[2]
    if softcap is not None:
        return _softcapped(query, key, value, dropout=dropout, scaling=scaling, window=window, softcap=softcap)
    if window is None or num_tokens <= window:
        shares_keys = key.shape[1] < query.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=shares_keys
        )
    mask = _window_mask(num_tokens, window, query.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)


def _softcapped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    dropout: float,
    scaling: float | None,
    window: int | None,
    softcap: float,
    block: int | None = None,
) -> torch.Tensor:
    """The same with bounded scores, which PyTorch has no kernel for (Gemma 2, arXiv:2408.00118, section 2).

    Args:
        query: As the others.
        key: As the others.
        value: As the others.
        dropout: Probability that an attention weight is dropped.
        scaling: Factor of the scores.
        window: Tokens that a token sees back.
        softcap: Bound of the scores.
        block: Queries whose scores are there at once, and again in the backward pass; None is all of them on a CPU,
            where rows are short and computing again isn't cheap.
    """
    num_tokens = query.shape[2]
    attend = partial(_softcapped_block, dropout=dropout, scaling=scaling, window=window, softcap=softcap)
    block = block or (_SOFTCAP_BLOCK if query.device.type == "cuda" else num_tokens)
    if num_tokens <= block:
        return attend(query, key, value)
    outputs: list[torch.Tensor] = []
    for start in range(0, num_tokens, block):
        seen = slice(0 if window is None else max(0, start - window + 1), start + block)
        tensors = (query[:, :, start : start + block], key[:, :, seen], value[:, :, seen])
        outputs.append(checkpoint(attend, *tensors, use_reentrant=False, preserve_rng_state=dropout > 0))
    return torch.cat(outputs, dim=2)


def _softcapped_block(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    dropout: float,
    scaling: float | None,
    window: int | None,
    softcap: float,
) -> torch.Tensor:
    """The last queries of a row, with the keys that they see; of both, the last is the same token."""
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    seen = _window_mask(key.shape[2], window or key.shape[2], query.device)[-query.shape[2] :]
    scores = scores.masked_fill(~seen, float("-inf"))
    weights = F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype), dropout)
    return weights @ value


def _window_mask(num_tokens: int, window: int, device: torch.device) -> torch.Tensor:
    """(tokens, tokens) bool; which keys a query sees."""
    positions = torch.arange(num_tokens, device=device)
    distance = positions[:, None] - positions[None, :]
    return (distance >= 0) & (distance < window)
