"""Bodies of /v1/chat/completions."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sienn_ray.api.schemas.common import RequestBody, ResponseBody
from sienn_ray.api.schemas.messages import VARIABLES, Messages
from sienn_ray.api.schemas.openai_answers import CREATED_FIELD, FINISH_REASON, MODEL_FIELD, FinishReason, Usage
from sienn_ray.api.schemas.openai_requests import MAX_TOKENS, NoList, OpenAiRequest
from sienn_ray.inference.engine import ChatMessage, SamplingParams
from sienn_ray.training.config import ChatTemplateKwargs

_DEFAULT_MAX_TOKENS = 1024
_MAX_TOP_LOGPROBS = 20
_ID_FIELD = Field(
    description="Ends with the id of the request.", examples=["chatcmpl-1a2b3c4d5e6f40718293a4b5c6d7e8f9"]
)


class TextFormat(RequestBody):
    """The only form that an answer has here."""

    type: Literal["text"] = Field(description="Other formats aren't supported.")


class ChatCompletionRequest(OpenAiRequest):
    """A conversation to continue."""

    messages: Messages = Field(
        description="The conversation so far.", examples=[[{"role": "user", "content": "What is LoRA?"}]]
    )
    max_completion_tokens: int | None = Field(
        None,
        ge=1,
        le=MAX_TOKENS,
        description=f"Tokens of an answer; {_DEFAULT_MAX_TOKENS} without it, or as many as there is room for.",
        examples=[200],
    )
    max_tokens: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="The older name of `max_completion_tokens`.", examples=[200]
    )
    logprobs: bool = Field(False, description="Give the log-probability of each token.", examples=[False, True])
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=_MAX_TOP_LOGPROBS,
        description="And those of this many of the likeliest; only with `logprobs`.",
        examples=[None, 5],
    )
    chat_template_kwargs: ChatTemplateKwargs = Field({}, description=VARIABLES, examples=[{"enable_thinking": False}])
    response_format: TextFormat | None = Field(None, description="Text is all there is.", examples=[None])
    tools: NoList = Field([], description="Not supported.", examples=[[]])
    tool_choice: Literal["none", "auto"] | None = Field(None, description="Accepted, as there are no tools.")
    functions: NoList = Field([], description="Not supported.", examples=[[]])
    function_call: Literal["none", "auto"] | None = Field(None, description="Accepted, as there are no functions.")

    @model_validator(mode="after")
    def _has_logprobs_for_the_top_ones(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self

    @property
    def template_variables(self) -> dict[str, Any]:
        """See `OpenAiRequest.template_variables`."""
        return self.chat_template_kwargs

    @property
    def prompts(self) -> list[tuple[ChatMessage, ...]]:
        """The conversation, which is the only prompt."""
        return [tuple(message.chat_message for message in self.messages)]

    def sampling_of(self, choice: int) -> SamplingParams:
        """See `OpenAiRequest.sampling_of`."""
        asked = self.max_completion_tokens or self.max_tokens
        num_logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self._sampling_params(
            choice,
            max_tokens=asked or _DEFAULT_MAX_TOKENS,
            num_logprobs=num_logprobs,
            fits_context=asked is None,
        )


class TopLogprob(ResponseBody):
    """One of the likeliest tokens at a place."""

    token: str = Field(description="Its text.", examples=["Lo"])
    logprob: float = Field(description="Natural logarithm of its probability; -9999 is none.", examples=[-0.31])
    bytes: list[int] = Field(description="What it adds to the text, in UTF-8.", examples=[[76, 111]])


class ChatLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob] = Field(description="The likeliest at its place.")


class ChatLogprobs(ResponseBody):
    """The log-probabilities of an answer."""

    content: list[ChatLogprob] = Field(description="One for each token.")
    refusal: None = Field(None, description="Always null.", examples=[None])


class AssistantMessage(ResponseBody):
    """The model's message."""

    role: Literal["assistant"] = Field("assistant", description="Whose it is.")
    content: str = Field(description="The answer.", examples=["LoRA learns a low-rank change of a model's weights."])
    refusal: None = Field(None, description="Always null.", examples=[None])


class ChatChoice(ResponseBody):
    """One answer."""

    index: int = Field(description="Its number.", examples=[0])
    message: AssistantMessage = Field(description="What the model says.")
    logprobs: ChatLogprobs | None = Field(description="Log-probabilities, if they were asked for.")
    finish_reason: FinishReason = Field(description=FINISH_REASON)


class ChatCompletion(ResponseBody):
    """The answers to a conversation."""

    id: str = _ID_FIELD
    object: Literal["chat.completion"] = Field("chat.completion", description="The kind of this object.")
    created: int = CREATED_FIELD
    model: str = MODEL_FIELD
    choices: list[ChatChoice] = Field(description="The answers, `n` of them.")
    usage: Usage = Field(description="What was read and written.")


class ChatDelta(ResponseBody):
    """The piece of the message that has come since the chunk before."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatChunkChoice(ResponseBody):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(ResponseBody):
    """One event of a stream. What isn't set isn't sent."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
