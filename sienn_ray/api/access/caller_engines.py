"""The engines as one caller has them: what their answers take is counted as the caller's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from sienn_ray.access.principals import Principal
from sienn_ray.access.usage import UsageCounts, UsageRecorder
from sienn_ray.inference.engine import ChatMessage, GenerationDelta, GenerationRequest, GenerationResult

# Of English text, one token is about as much; hosted APIs estimate by the same rule.
_BYTES_PER_TOKEN = 4
# What a chat template puts around a message.
_TOKENS_PER_MESSAGE = 4


class AnsweringEngines(Protocol):
    """The engines behind; see `deps.Engines`."""

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """See `Engines.generate`."""
        ...

    def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """See `Engines.stream`."""
        ...


@dataclass(frozen=True)
class CallerEngines:
    """Answers for one caller, who is counted what they take.

    An answer that is broken off, by the client or a failure, counts with an estimate of what was sent of it.

    Args:
        engines: Who answers.
        principal: The caller.
        usage: Takes the counts.
    """

    engines: AnsweringEngines
    principal: Principal
    usage: UsageRecorder

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """See `Engines.generate`."""
        try:
            result = await self.engines.generate(base_model, request, start_wait_s)
        except asyncio.CancelledError:  # the client has gone, and nobody knows how far the answer was
            self._count(base_model, request, _counts_of_part(request, 0))
            raise
        self._count(base_model, request, _counts_of(result))
        return result

    async def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """See `Engines.stream`."""
        result, sent_bytes, is_begun = None, 0, False
        try:
            async with aclosing(self.engines.stream(base_model, request, start_wait_s)) as deltas:
                async for delta in deltas:
                    is_begun = True
                    sent_bytes += len(delta.text.encode(errors="replace"))
                    result = delta.result or result
                    yield delta
        finally:
            if result is not None:
                self._count(base_model, request, _counts_of(result))
            elif is_begun:
                self._count(base_model, request, _counts_of_part(request, sent_bytes))

    def _count(self, base_model: str, request: GenerationRequest, counts: UsageCounts) -> None:
        self.usage.add(self.principal, counts, base_model, request.adapter_id or "")


def prompt_tokens_estimated(prompt: tuple[ChatMessage, ...] | str) -> int:
    """Return about how many tokens a prompt has; the ingress has no tokenizer.

    Example:
        >>> prompt_tokens_estimated((ChatMessage("user", "What is LoRA?"),))
        8
    """
    if isinstance(prompt, str):
        return _tokens_of(prompt)
    return sum(_tokens_of(message.content) + _TOKENS_PER_MESSAGE for message in prompt)


def _tokens_of(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def _counts_of(result: GenerationResult) -> UsageCounts:
    return UsageCounts(
        num_answers=1,
        prompt_tokens=result.num_prompt_tokens,
        completion_tokens=result.num_generated_tokens,
        engine_s=result.generation_time_s,
    )


def _counts_of_part(request: GenerationRequest, sent_bytes: int) -> UsageCounts:
    return UsageCounts(
        num_answers=1,
        prompt_tokens=prompt_tokens_estimated(request.prompt),
        completion_tokens=-(-sent_bytes // _BYTES_PER_TOKEN),
    )
