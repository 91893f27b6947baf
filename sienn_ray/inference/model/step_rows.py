"""The rows of a step: what is computed of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepRow:
    """The part of one request in a step: a token to decode, or a chunk of a prompt to prefill.

    Args:
        tokens: The request's tokens up to the last one to compute.
        num_before: Number of those that are computed already.
        blocks: The request's KV blocks, with room for these tokens.
        adapter: Name of the adapter, or None.
        wants_logits: Whether the logits after the last of these tokens are wanted; a chunk before the last has none.
    """

    tokens: Sequence[int]
    num_before: int
    blocks: Sequence[int]
    adapter: str | None
    wants_logits: bool

    @property
    def num_new(self) -> int:
        """Number of tokens to compute."""
        return len(self.tokens) - self.num_before
