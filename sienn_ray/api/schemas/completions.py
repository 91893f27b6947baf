"""Bodies of /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.messages import MAX_TEXT_CHARS
from sienn_ray.api.schemas.openai_answers import CREATED_FIELD, FINISH_REASON, MODEL_FIELD, FinishReason, Usage
from sienn_ray.api.schemas.openai_requests import DEFAULT_MAX_TOKENS, NoFlag, NoText, OpenAiRequest, TokenLimit
from sienn_ray.inference.engine import SamplingParams

MAX_PROMPTS = 16
_MAX_LOGPROBS = 5


def _no_token_ids(value: Any) -> Any:
    items = value if isinstance(value, list) else []
    if any(isinstance(item, list) or type(item) is int for item in items):
        raise ValueError("token ids are not taken; send the text that they stand for")
    return value


Prompt = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Prompts = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionRequest(OpenAiRequest):
    """Text to continue, as it is."""

    prompt: Annotated[Prompt | Prompts, BeforeValidator(_no_token_ids)] = Field(
        description=f"The text, or up to {MAX_PROMPTS} of them.", examples=["LoRA is", ["LoRA is", "A GPU is"]]
    )
    max_tokens: TokenLimit = Field(
        16,
        description=f"Tokens of an answer; -1 is {DEFAULT_MAX_TOKENS}, or what there is room for.",
        examples=[200],
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=_MAX_LOGPROBS,
        description="Give the log-probability of each token, and of this many of the likeliest.",
        examples=[None, 5],
    )
    echo: NoFlag = Field(False, description="Not supported.", examples=[False])
    suffix: NoText = Field("", description="Not supported.", examples=[""])
    best_of: Literal[1] = Field(1, description="All answers are returned.")

    @property
    def prompts(self) -> list[str]:
        """The prompts, also where it is a single one."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def sampling_of(self, choice: int) -> SamplingParams:
        """See `OpenAiRequest.sampling_of`."""
        is_bounded = self.max_tokens is not None
        return self._sampling_params(
            choice,
            max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
            num_logprobs=self.logprobs,
            fits_context=not is_bounded,
        )


class CompletionLogprobs(ResponseBody):
    """The log-probabilities of an answer, place by place."""

    tokens: list[str] = Field(description="The tokens.", examples=[[" a", " method"]])
    token_logprobs: list[float] = Field(
        description="Natural logarithms of their probabilities; -9999 is none.", examples=[[-0.31, -1.2]]
    )
    top_logprobs: list[dict[str, float]] = Field(
        description="The likeliest at each place.", examples=[[{" a": -0.31}, {" method": -1.2}]]
    )
    text_offset: list[int] = Field(description="Where each token begins in the answer.", examples=[[0, 2]])


class CompletionChoice(ResponseBody):
    """One answer, or a piece of it."""

    index: int = Field(description="Its number: `n` for the first prompt, then `n` for the next.", examples=[0])
    text: str = Field(description="What comes behind the prompt.", examples=[" a method"])
    logprobs: CompletionLogprobs | None = Field(description="Log-probabilities, if they were asked for.")
    finish_reason: FinishReason | None = Field(description=FINISH_REASON + " Null while it goes on.")


class Completion(ResponseBody):
    """The answers, or one event of a stream, in which what isn't set isn't sent."""

    id: str = Field(description="Ends with the id of the request.", examples=["cmpl-1a2b3c4d5e6f40718293a4b5c6d7e8f9"])
    object: Literal["text_completion"] = Field("text_completion", description="The kind of this object.")
    created: int = CREATED_FIELD
    model: str = MODEL_FIELD
    choices: list[CompletionChoice] = Field(description="The answers.")
    usage: Usage | None = Field(None, description="What was read and written.")
