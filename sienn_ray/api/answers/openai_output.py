"""Fields, statuses and chunks that all answers of the OpenAI API have in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, assert_never

from starlette.requests import HTTPConnection

from sienn_ray.api.http.request_id import request_id_of
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.openai_answers import FinishReason, PromptTokensDetails, Usage
from sienn_ray.inference.engine import GenerationDelta, GenerationResult

# Statuses of everything that asks for one model.
ERRORS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
# What the OpenAI API says of a token that is next to impossible; JSON has no infinity.
_LEAST_LOGPROB = -9999.0


@dataclass(frozen=True)
class ResponseHead:
    """The fields at the beginning of every object of one response.

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
    def of(cls, connection: HTTPConnection, kind: str, model: str, num_choices: int) -> ResponseHead:
        """The head of the response to a request; its id ends with the request's."""
        return cls(f"{kind}-{request_id_of(connection.scope)}", int(time.time()), model, num_choices)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the same names."""
        return {"id": self.id, "created": self.created, "model": self.model}

    def usage(self, results: Sequence[GenerationResult]) -> Usage:
        """Return the tokens of all answers. A prompt counts once, however many answers it has."""
        firsts = results[:: self.num_choices]
        prompt_tokens = sum(result.num_prompt_tokens for result in firsts)
        completion_tokens = sum(result.num_generated_tokens for result in results)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(result.num_cached_tokens for result in firsts)),
        )


class OpenAiOutput(ABC):
    """The answers to one request, whole or in chunks, in the shape of one route.

    Args:
        head: The fields at the beginning of each object.
        with_usage: Whether a last chunk has the usage.
    """

    def __init__(self, head: ResponseHead, *, with_usage: bool) -> None:
        self._head = head
        self._with_usage = with_usage

    @abstractmethod
    def whole(self, results: Sequence[GenerationResult]) -> ResponseBody:
        """Return the answers as one object."""

    @abstractmethod
    def chunks(self, number: int, delta: GenerationDelta) -> Iterable[ResponseBody]:
        """Return the chunks for a piece of the answer with a number."""

    @abstractmethod
    def _chunk(self, choices: list[Any], **usage: Any) -> ResponseBody:
        """Return one chunk with the head."""

    def last_chunk(self, results: Sequence[GenerationResult]) -> ResponseBody | None:
        """Return the chunk behind all others, if there is one."""
        return self._chunk([], usage=self._head.usage(results)) if self._with_usage else None

    def _chunk_of(self, choice: ResponseBody) -> ResponseBody:
        return self._chunk([choice], **({"usage": None} if self._with_usage else {}))


def finish_reason(result: GenerationResult) -> FinishReason:
    """Return the reason for an answer's end."""
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
