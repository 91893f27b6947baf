"""What an engine is asked and what it answers; nothing here imports torch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt for a base model, with an adapter or without.

    Args:
        prompt: What the user wrote; the engine puts it into the prompt format that training used.
        adapter_id: The adapter's job id; None asks the base model itself.
        adapter_key: Storage key of that adapter.
        max_new_tokens: Tokens to generate at the most.
        temperature: Divides the logits before sampling.
        top_p: Nucleus: samples from the smallest set of tokens with at least this probability.
        repetition_penalty: Divides the logits of tokens that stand in the text already (Keskar et al. 2019, CTRL).
        do_sample: Sample, or take the likeliest token.
        seed: Makes sampling repeatable; None draws anew.
    """

    prompt: str
    adapter_id: str | None = None
    adapter_key: str | None = None
    max_new_tokens: int = 200
    temperature: float = 0.7
    top_p: float = 0.95
    repetition_penalty: float = 1.2
    do_sample: bool = True
    seed: int | None = None


@dataclass(frozen=True)
class GenerationResult:
    """One answer.

    `generation_time_s` counts from the request's turn to the last token, loading included; `time_to_first_token_s` from
    its arrival to the first token, waiting included, or is None where there was none.
    """

    text: str
    rendered_prompt: str
    num_prompt_tokens: int
    num_generated_tokens: int
    finish_reason: str
    adapter_cached: bool
    generation_time_s: float
    time_to_first_token_s: float | None = None


class Engine(Protocol):
    """Generates text with one base model and its adapters."""

    @property
    def num_adapters(self) -> int:
        """Adapters in memory."""
        ...

    def generate(self, request: GenerationRequest, cancelled: threading.Event | None = None) -> GenerationResult:
        """Answer one request; stops early once `cancelled` is set."""
        ...
