"""Answers of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sienn_ray.api.answers.openai_output import OpenAiOutput, ResponseHead, finish_reason, finite
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
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.inference.engine import GenerationDelta, GenerationResult, TokenLogprob


class ChatOutput(OpenAiOutput):
    """The answers to one conversation."""

    def __init__(self, head: ResponseHead, *, with_usage: bool) -> None:
        super().__init__(head, with_usage=with_usage)
        self._begun: set[int] = set()

    def whole(self, results: Sequence[GenerationResult]) -> ChatCompletion:
        """See `OpenAiOutput.whole`."""
        choices = [_choice(number, result) for number, result in enumerate(results)]
        return ChatCompletion(**self._head.fields, choices=choices, usage=self._head.usage(results))

    def chunks(self, number: int, delta: GenerationDelta) -> Iterator[ResponseBody]:
        """See `OpenAiOutput.chunks`; a role comes first, then text, and a reason at last."""
        if number not in self._begun:
            self._begun.add(number)
            yield self._piece(number, ChatDelta(role="assistant", content=""))
        if delta.text or delta.logprobs:
            logprobs = {"logprobs": _logprobs(delta.logprobs)} if delta.logprobs else {}
            yield self._piece(number, ChatDelta(content=delta.text), **logprobs)
        if delta.result is not None:
            yield self._piece(number, ChatDelta(), finish_reason=finish_reason(delta.result))

    def _piece(self, number: int, delta: ChatDelta, **fields: Any) -> ResponseBody:
        return self._chunk_of(ChatChunkChoice(index=number, delta=delta, **{"finish_reason": None, **fields}))

    def _chunk(self, choices: list[ChatChunkChoice], **usage: Any) -> ChatCompletionChunk:
        return ChatCompletionChunk(**self._head.fields, object="chat.completion.chunk", choices=choices, **usage)


def _choice(number: int, result: GenerationResult) -> ChatChoice:
    return ChatChoice(
        index=number,
        message=AssistantMessage(content=result.text),
        logprobs=None if result.logprobs is None else _logprobs(result.logprobs),
        finish_reason=finish_reason(result),
    )


def _logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(content=[_logprob(token) for token in tokens], refusal=None)


def _logprob(token: TokenLogprob) -> ChatLogprob:
    return ChatLogprob(**_fields(token), top_logprobs=[TopLogprob(**_fields(each)) for each in token.top])


def _fields(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": finite(token.logprob), "bytes": list(token.token_bytes)}
