"""Answers of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sienn_ray.api.openai_output import Heading, finish_reason, finite
from sienn_ray.api.schemas.chat import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    TopLogprob,
)
from sienn_ray.inference.engine import GenerationDelta, GenerationResult, TokenLogprob


def chat_completion(heading: Heading, results: Sequence[GenerationResult]) -> ChatCompletion:
    """The answers as a whole."""
    choices = [_choice(number, result) for number, result in enumerate(results)]
    return ChatCompletion(**heading.fields, choices=choices, usage=heading.usage(results))


def _choice(number: int, result: GenerationResult) -> ChatChoice:
    return ChatChoice(
        index=number,
        message=AssistantMessage(content=result.text),
        logprobs=None if result.logprobs is None else _logprobs(result.logprobs),
        finish_reason=finish_reason(result),
    )


class ChatChunks:
    """The chunks of one stream.

    Args:
        heading: What each of them begins with.
        with_usage: Whether a last one has the usage.
    """

    def __init__(self, heading: Heading, *, with_usage: bool) -> None:
        self._heading = heading
        self._with_usage = with_usage
        self._begun: set[int] = set()

    def of(self, number: int, delta: GenerationDelta) -> Iterator[ChatCompletionChunk]:
        """What a piece of an answer becomes: a role at first, text, and a reason at last."""
        if number not in self._begun:
            self._begun.add(number)
            yield self._chunk(number, ChatDelta(role="assistant", content=""))
        if delta.text or delta.logprobs:
            logprobs = {"logprobs": _logprobs(delta.logprobs)} if delta.logprobs else {}
            yield self._chunk(number, ChatDelta(content=delta.text), **logprobs)
        if delta.result is not None:
            yield self._chunk(number, ChatDelta(), finish_reason=finish_reason(delta.result))

    def last(self, results: Sequence[GenerationResult]) -> ChatCompletionChunk | None:
        """The chunk behind all others, if there is one."""
        return self._with([], usage=self._heading.usage(results)) if self._with_usage else None

    def _chunk(self, number: int, delta: ChatDelta, **fields: Any) -> ChatCompletionChunk:
        choice = ChatChunkChoice(index=number, delta=delta, **{"finish_reason": None, **fields})
        return self._with([choice], **({"usage": None} if self._with_usage else {}))

    def _with(self, choices: list[ChatChunkChoice], **usage: Any) -> ChatCompletionChunk:
        return ChatCompletionChunk(**self._heading.fields, object="chat.completion.chunk", choices=choices, **usage)


def _logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(content=[_logprob(token) for token in tokens], refusal=None)


def _logprob(token: TokenLogprob) -> ChatLogprob:
    return ChatLogprob(**_fields(token), top_logprobs=[TopLogprob(**_fields(each)) for each in token.top])


def _fields(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": finite(token.logprob), "bytes": list(token.token_bytes)}
