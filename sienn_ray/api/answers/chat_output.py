"""Answers of /v1/chat/completions."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sienn_ray.api.answers.message_reader import MessageReader, Piece
from sienn_ray.api.answers.openai_output import OpenAiOutput, ResponseHead, finish_reason, finite
from sienn_ray.api.schemas.chat import (
    AssistantMessage,
    CallDelta,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    FunctionCall,
    MadeCall,
    TopLogprob,
)
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.openai_answers import ChatFinishReason
from sienn_ray.inference.engine import GenerationDelta, GenerationResult, TokenLogprob, ToolCall

_ID_BYTES = 12


class ChatOutput(OpenAiOutput):
    """The answers to one conversation.

    Args:
        head: See `OpenAiOutput`.
        body: The request.
    """

    def __init__(self, head: ResponseHead, body: ChatCompletionRequest) -> None:
        super().__init__(head, with_usage=bool(body.stream_options.include_usage))
        self._body = body
        self._tools = [tool.as_rows_have_it for tool in body.shown_tools]
        self._readers: dict[int, MessageReader] = {}
        self._num_calls: Counter[int] = Counter()

    def whole(self, results: Sequence[GenerationResult]) -> ChatCompletion:
        """See `OpenAiOutput.whole`."""
        choices = [self._choice(number, result) for number, result in enumerate(results)]
        return ChatCompletion(**self._head.fields, choices=choices, usage=self._head.usage(results))

    def chunks(self, number: int, delta: GenerationDelta) -> Iterator[ResponseBody]:
        """See `OpenAiOutput.chunks`; a role comes first, then reasoning, text and calls, and a reason at last."""
        if number not in self._readers:
            self._readers[number] = self._reader(begins_in_reasoning=delta.begins_in_reasoning)
            yield self._piece(number, ChatDelta(role="assistant", content=""))
        reader = self._readers[number]
        pieces = [*reader.push(delta.text), *(reader.end() if delta.result is not None else ())]
        deltas = [each for piece in pieces if (each := self._delta(number, piece)) is not None]
        if delta.logprobs and not deltas:
            deltas = [ChatDelta(content="")]
        for index, each in enumerate(deltas):
            logprobs = {"logprobs": _logprobs(delta.logprobs)} if delta.logprobs and index == 0 else {}
            yield self._piece(number, each, **logprobs)
        if delta.result is not None:
            reason = _reason(delta.result, has_calls=self._num_calls[number] > 0)
            yield self._piece(number, ChatDelta(), finish_reason=reason)

    def _reader(self, *, begins_in_reasoning: bool) -> MessageReader:
        return MessageReader(
            self._tools,
            reads_reasoning=self._body.separate_reasoning,
            begins_in_reasoning=begins_in_reasoning,
        )

    def _delta(self, number: int, piece: Piece) -> ChatDelta | None:
        """What a piece adds to the message, if it does."""
        if piece.call is None:
            return ChatDelta(reasoning_content=piece.reasoning) if piece.reasoning else ChatDelta(content=piece.content)
        index = self._num_calls[number]
        if index > 0 and not self._body.parallel_tool_calls:
            return None
        self._num_calls[number] += 1
        made = _made(piece.call)
        return ChatDelta(tool_calls=[CallDelta(index=index, id=made.id, type="function", function=made.function)])

    def _choice(self, number: int, result: GenerationResult) -> ChatChoice:
        reader = self._reader(begins_in_reasoning=result.begins_in_reasoning)
        pieces = [*reader.push(result.text), *reader.end()]
        calls = [_made(piece.call) for piece in pieces if piece.call is not None]
        calls = calls if self._body.parallel_tool_calls else calls[:1]
        content = "".join(piece.content for piece in pieces)
        return ChatChoice(
            index=number,
            message=AssistantMessage(
                content=None if calls and not content else content,
                reasoning_content="".join(piece.reasoning for piece in pieces) or None,
                tool_calls=calls or None,
            ),
            logprobs=None if result.logprobs is None else _logprobs(result.logprobs),
            finish_reason=_reason(result, has_calls=bool(calls)),
        )

    def _piece(self, number: int, delta: ChatDelta, **fields: Any) -> ResponseBody:
        return self._chunk_of(ChatChunkChoice(index=number, delta=delta, **{"finish_reason": None, **fields}))

    def _chunk(self, choices: list[ChatChunkChoice], **usage: Any) -> ChatCompletionChunk:
        return ChatCompletionChunk(**self._head.fields, object="chat.completion.chunk", choices=choices, **usage)


def _made(call: ToolCall) -> MadeCall:
    function = FunctionCall(name=call.name, arguments=call.arguments)
    return MadeCall(id=f"call_{secrets.token_hex(_ID_BYTES)}", function=function)


def _reason(result: GenerationResult, *, has_calls: bool) -> ChatFinishReason:
    reason = finish_reason(result)
    return "tool_calls" if has_calls and reason == "stop" else reason


def _logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(content=[_logprob(token) for token in tokens], refusal=None)


def _logprob(token: TokenLogprob) -> ChatLogprob:
    return ChatLogprob(**_fields(token), top_logprobs=[TopLogprob(**_fields(each)) for each in token.top])


def _fields(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": finite(token.logprob), "bytes": list(token.token_bytes)}
