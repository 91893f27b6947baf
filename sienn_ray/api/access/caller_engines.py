"""The engines as one caller has them: within its limits, and counted as what it uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from sienn_ray.access.principals import Principal
from sienn_ray.access.usage import UsageCounts, UsageRecorder
from sienn_ray.api.access.admissions import Admission
from sienn_ray.api.access.token_estimates import prompt_tokens, tokens_of_bytes
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult


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
    """Answers for one caller, within its limits, who is counted what they take.

    All routes have their engines from here (`deps`), so that none can forget the limits. An answer that is broken off,
    by the client or a failure, counts with an estimate of what was sent of it.

    Args:
        engines: Who answers.
        principal: The caller.
        usage: Takes the counts.
        admission: The limits of the caller; None where it has none.
    """

    engines: AnsweringEngines
    principal: Principal
    usage: UsageRecorder
    admission: Admission | None = None

    async def admit(self, requests: Sequence[GenerationRequest]) -> None:
        """See `Backends.admit`."""
        if self.admission is not None:
            await self.admission.admit_ahead(requests)

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """See `Engines.generate`."""
        if self.admission is not None:
            await self.admission.admit([request])
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
        if self.admission is not None:
            await self.admission.admit([request])
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
        if self.admission is not None:
            self.admission.note_tokens(counts.prompt_tokens + counts.completion_tokens)
        self.usage.add(self.principal, counts, base_model, request.adapter_id or "")


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
        prompt_tokens=prompt_tokens(request.prompt),
        completion_tokens=tokens_of_bytes(sent_bytes),
    )
