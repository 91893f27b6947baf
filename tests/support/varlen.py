"""Variable-length attention in plain tensors, for machines without the kernel."""

from __future__ import annotations

import torch


def plain_varlen(
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
    """See `varlen_attention.Kernel`; the causal mask is aligned to a row's last token, as FlashAttention's is."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    query_rows, query_ends = _places(query.shape[0], cu_seq_q)
    key_rows, key_ends = _places(key.shape[0], cu_seq_k)
    distance = query_ends[:, None] - key_ends[None, :]
    seen = (query_rows[:, None] == key_rows[None, :]) & (distance >= -window_size[1])
    if window_size[0] >= 0:
        seen &= distance <= window_size[0]
    scores = torch.einsum("qhd,khd->hqk", query, key) * (scale if scale is not None else query.shape[-1] ** -0.5)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.einsum("hqk,khd->qhd", weights, value)


def _places(num_tokens: int, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens, and their places as seen from the end of the row."""
    numbers = torch.arange(num_tokens, device=starts.device)
    rows = torch.bucketize(numbers, starts[1:], right=True)
    return rows, numbers - starts[1:][rows]
