"""Bodies of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.continuation import ContinuationFields
from sienn_ray.api.schemas.messages import VARIABLES, Messages
from sienn_ray.api.schemas.openai_answers import CREATED_FIELD, FINISH_REASON, MODEL_FIELD, ChatFinishReason, Usage
from sienn_ray.api.schemas.openai_requests import DEFAULT_MAX_TOKENS, AskedAs, OpenAiRequest, Options, TokenLimit
from sienn_ray.api.schemas.tools import ToolBody, ToolChoice, Tools
from sienn_ray.inference.engine import ChatMessage, SamplingParams
from sienn_ray.training.config import ChatTemplateKwargs

_MAX_TOP_LOGPROBS = 20
_ID_FIELD = Field(
    description="Ends with the id of the request.", examples=["chatcmpl-1a2b3c4d5e6f40718293a4b5c6d7e8f9"]
)


def _is_none(value: object) -> bool:
    return value is None


def _no_functions(value: Any) -> Any:
    if value:
        raise ValueError("the older form of tools is not supported here; send tools")
    return value


NoFunctions = Annotated[list[Any], Field(max_length=0), BeforeValidator(_no_functions)]


class TextFormat(Options):
    """The only form that an answer has here."""

    type: Literal["text"] = Field(description="Other formats aren't supported.")


class ChatCompletionRequest(OpenAiRequest, ContinuationFields):
    """A conversation to continue."""

    ignored = (OpenAiRequest.ignored - {"parallel_tool_calls"}) | {"reasoning_effort", "verbosity"}

    messages: Messages = Field(
        description="The conversation so far.", examples=[[{"role": "user", "content": "What is LoRA?"}]]
    )
    max_completion_tokens: TokenLimit = Field(
        None,
        description=f"Tokens of an answer; {DEFAULT_MAX_TOKENS} without it or with -1, or what there is room for.",
        examples=[200],
    )
    max_tokens: TokenLimit = Field(None, description="The older name of `max_completion_tokens`.", examples=[200])
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
    tools: Tools = Field(
        [],
        description="Tools that the model may call, for base models whose chat template writes them out.",
        examples=[[], [{"type": "function", "function": {"name": "opening_hours"}}]],
    )
    tool_choice: ToolChoice | None = Field(
        None, description="With `none`, the model isn't shown the tools; `auto`, as without it, leaves it to the model."
    )
    parallel_tool_calls: bool = Field(
        True, description="Whether an answer may have several calls; else the first one is given.", examples=[True]
    )
    separate_reasoning: bool = Field(
        True,
        description="Give what the model writes in a block `<think>` at the answer's beginning as `reasoning_content`, "
        "beside `content`; else all of it is `content`.",
        examples=[True],
    )
    functions: NoFunctions = Field([], description="Not supported; `tools` are.", examples=[[]])
    function_call: Literal["none", "auto"] | None = Field(None, description="Accepted, as there are no functions.")

    @model_validator(mode="after")
    def _has_logprobs_for_the_top_ones(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self

    @model_validator(mode="after")
    def _goes_on_with_what_is_there(self) -> Self:
        self.continues(self.messages)
        return self

    @property
    def shown_tools(self) -> list[ToolBody]:
        """The tools that the model may call."""
        return [] if self.tool_choice == "none" else self.tools

    @property
    def as_asked(self) -> AskedAs:
        """See `OpenAiRequest.as_asked`."""
        tools = tuple(tool.as_rows_have_it for tool in self.shown_tools)
        return AskedAs(tools, self.continues(self.messages), self.chat_template_kwargs)

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
            max_tokens=asked or DEFAULT_MAX_TOKENS,
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


class FunctionCall(ResponseBody):
    """The function that the model calls."""

    name: str = Field(description="Its name.", examples=["opening_hours"])
    arguments: str = Field(description="A JSON object, as text.", examples=['{"day": "Monday"}'])


class MadeCall(ResponseBody):
    """A call of a tool."""

    id: str = Field(description="What the message with its result names.", examples=["call_5f0c"])
    type: Literal["function"] = Field("function", description="The kind of the tool.")
    function: FunctionCall = Field(description="The function.")


class AssistantMessage(ResponseBody):
    """The model's message."""

    role: Literal["assistant"] = Field("assistant", description="Whose it is.")
    content: str | None = Field(
        description="The answer; null where the model only calls tools.",
        examples=["LoRA learns a low-rank change of a model's weights."],
    )
    refusal: None = Field(None, description="Always null.", examples=[None])
    reasoning_content: str | None = Field(
        None,
        description="The reasoning before the answer, where the model writes it in a block `<think>`.",
        examples=["The question is about fine-tuning."],
        exclude_if=_is_none,
    )
    tool_calls: list[MadeCall] | None = Field(None, description="Calls of the request's `tools`.", exclude_if=_is_none)


class ChatChoice(ResponseBody):
    """One answer."""

    index: int = Field(description="Its number.", examples=[0])
    message: AssistantMessage = Field(description="What the model says.")
    logprobs: ChatLogprobs | None = Field(description="Log-probabilities, if they were asked for.")
    finish_reason: ChatFinishReason = Field(description=FINISH_REASON + " `tool_calls` where it ends with calls.")


class ChatCompletion(ResponseBody):
    """The answers to a conversation."""

    id: str = _ID_FIELD
    object: Literal["chat.completion"] = Field("chat.completion", description="The kind of this object.")
    created: int = CREATED_FIELD
    model: str = MODEL_FIELD
    choices: list[ChatChoice] = Field(description="The answers, `n` of them.")
    usage: Usage = Field(description="What was read and written.")


class CallDelta(MadeCall):
    """A call of a tool, which comes in one piece."""

    index: int


class ChatDelta(ResponseBody):
    """The piece of the message that has come since the chunk before."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""
    tool_calls: list[CallDelta] = Field([])


class ChatChunkChoice(ResponseBody):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None = None


class ChatCompletionChunk(ResponseBody):
    """One event of a stream. What isn't set isn't sent."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
