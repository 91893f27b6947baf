"""The kernels that PyTorch's attention takes on a CUDA device; a CPU build would choose its composed one."""

from __future__ import annotations

import torch

_HALVES = (torch.float16, torch.bfloat16)
_MAX_FLASH_HEAD = 256


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Compute `scaled_dot_product_attention` by FlashAttention where that can, else by the memory-efficient kernel.

    The choice is that of `sdp_utils.cpp`: FlashAttention takes half precision and no mask, shares key heads, and is
    causal over as many queries as keys only.
    """
    query, key, value = (_cast(each) for each in (query, key, value))
    is_square = not is_causal or query.shape[-2] == key.shape[-2]
    if attn_mask is None and query.dtype in _HALVES and query.shape[-1] <= _MAX_FLASH_HEAD and is_square:
        flash: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
        return flash
    if enable_gqa and query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    bias = None if attn_mask is None else _bias(attn_mask, query, key)
    is_kept = any(each.requires_grad for each in (query, key, value)) and torch.is_grad_enabled()
    efficient: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, is_kept, dropout_p, is_causal, scale=scale
    )[0]
    return efficient


def _cast(tensor: torch.Tensor) -> torch.Tensor:
    """Cast as autocast does, which knows the operator behind PyTorch's function only."""
    if not torch.is_autocast_enabled("cuda") or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype("cuda"))


def _bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    if mask.dtype is torch.bool:
        mask = query.new_zeros(mask.shape).masked_fill_(mask.logical_not(), float("-inf"))
    return _cast(mask).expand(*query.shape[:2], query.shape[-2], key.shape[-2])
