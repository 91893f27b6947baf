"""Paged attention of many requests at once, over one KV cache.

The tokens of a step, one of each request that decodes and a chunk of each prompt that is prefilled, are one row to the
model, without padding. Only attention knows requests: it writes the new keys and values into the cache and attends
within each request. How, is the step's: `in_place_attention` on a CPU, `gathered_attention` on a GPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from transformers import AttentionInterface

NAME = "sienn_paged"


class PagedStep(ABC):
    """The requests of a step, as attention needs them."""

    def __init__(self) -> None:
        self._rotation: tuple[torch.Tensor, torch.Tensor] | None = None

    @abstractmethod
    def attend(
        self,
        layer: int,
        grouped: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Write the step's keys and values into a layer of the cache, and attend within requests, causally.

        Args:
            layer: Number of the layer in the cache.
            grouped: Queries, (tokens, key heads, heads that share a key head, head size).
            key: (tokens, key heads, head size).
            value: As `key`.
            scale: Factor of the scores.
            window: Tokens that a token attends to, itself included.
            softcap: Bound of the scores (Gemma 2).

        Returns:
            As `grouped`, with the head size of the values.
        """

    def rotation(self, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines, and sines signed for swapped halves, (tokens, 1, size) each; computed once for all layers.

        Args:
            cos: (1, tokens, size), the same for all layers.
            sin: As `cos`.
        """
        if self._rotation is None:
            half = sin.shape[-1] // 2
            signed = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)
            self._rotation = (cos[0].unsqueeze(1), signed.unsqueeze(1))
        return self._rotation


def register() -> None:
    """Register `NAME` with transformers; a repeat changes nothing. No mask function, so transformers makes no mask."""
    AttentionInterface.register(NAME, paged_attention)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    paged: PagedStep,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Write the step's keys and values, and attend within requests.

    Args:
        module: The attention layer; its `layer_idx` finds its part of the cache.
        query: (1, heads, tokens, head size).
        key: (1, key heads, tokens, head size); fewer heads are shared (grouped-query attention).
        value: As `key`.
        attention_mask: None; `paged` has all that is needed.
        paged: The step.
        scaling: Factor of the scores; None is one over the root of the head size.
        sliding_window: Tokens that a token attends to, itself included.
        softcap: Bound of the scores (Gemma 2).

    Returns:
        (1, tokens, heads, head size), and no weights.
    """
    num_heads, num_tokens, head_size = query.shape[1:]
    # Heads that share a key head become rows of one product: (tokens, key heads, heads of each, head size)
    grouped = query[0].transpose(0, 1).reshape(num_tokens, key.shape[1], -1, head_size)
    scale = scaling if scaling is not None else head_size**-0.5
    new = (key[0].transpose(0, 1), value[0].transpose(0, 1))
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = paged.attend(layer, grouped, *new, scale, sliding_window, softcap)
    return output.view(1, num_tokens, num_heads, -1), None
