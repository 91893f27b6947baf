"""What answers of the OpenAI API have in common, as a whole and as a stream."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, assert_never

from fastapi import Request

from sienn_ray.api.error_shapes import Fault
from sienn_ray.api.event_streams import event
from sienn_ray.api.request_id import request_id_of
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.openai_answers import FinishReason, PromptTokensDetails, Usage
from sienn_ray.inference.engine import GenerationDelta, GenerationResult

# What the OpenAI API says of a token that is next to impossible; JSON has no infinity.
_LEAST_LOGPROB = -9999.0


@dataclass(frozen=True)
class Heading:
    """What every object of one response begins with.

    Args:
        id: Names the response.
        created: Seconds since 1970.
        model: The model as the request names it.
        num_choices: Answers to each prompt.
    """

    id: str
    created: int
    model: str
    num_choices: int

    @classmethod
    def of(cls, request: Request, kind: str, model: str, num_choices: int) -> Heading:
        """The heading of the response to a request; its id ends with the request's."""
        return cls(f"{kind}-{request_id_of(request.scope)}", int(time.time()), model, num_choices)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the same names."""
        return {"id": self.id, "created": self.created, "model": self.model}

    def usage(self, results: Sequence[GenerationResult]) -> Usage:
        """What all answers took. A prompt counts once, however many answers it has."""
        firsts = results[:: self.num_choices]
        prompt_tokens = sum(result.num_prompt_tokens for result in firsts)
        completion_tokens = sum(result.num_generated_tokens for result in results)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(result.num_cached_tokens for result in firsts)),
        )


async def openai_events(
    pieces: AsyncGenerator[tuple[int, GenerationDelta]],
    chunks: Callable[[int, GenerationDelta], Iterable[ResponseBody]],
    last_chunk: Callable[[Sequence[GenerationResult]], ResponseBody | None],
) -> AsyncGenerator[bytes]:
    """The events of a stream, up to its end.

    Args:
        pieces: The pieces of all answers; see `stream_all`.
        chunks: What is sent for a piece.
        last_chunk: What is sent when all answers are whole.
    """
    results: dict[int, GenerationResult] = {}
    async with aclosing(pieces):
        async for number, delta in pieces:
            if delta.result is not None:
                results[number] = delta.result
            for chunk in chunks(number, delta):
                yield _chunk_event(chunk)
    if last := last_chunk([results[number] for number in sorted(results)]):
        yield _chunk_event(last)
    yield event("[DONE]")


def _chunk_event(chunk: ResponseBody) -> bytes:
    return event(chunk.model_dump_json(exclude_unset=True))


def openai_error_event(fault: Fault) -> bytes:
    """The last event of a stream that fails."""
    return event(json.dumps(fault.as_json(is_openai=True)))


def finish_reason(result: GenerationResult) -> FinishReason:
    """Why an answer ended."""
    match result.finish_reason:
        case "stop":
            return "stop"
        case "length" | "cancelled":
            return "length"
        case _:
            assert_never(result.finish_reason)


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, _LEAST_LOGPROB)
