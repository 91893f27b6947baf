"""Bodies of answers from a model."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sienn_ray.api.schemas.common import JOB_ID, ErrorResponse, ResponseBody, Timestamp
from sienn_ray.api.schemas.continuation import ContinuationFields
from sienn_ray.api.schemas.ids import JobId
from sienn_ray.api.schemas.messages import MAX_TEXT_CHARS, VARIABLES, Messages
from sienn_ray.api.schemas.openai_answers import FinishReason
from sienn_ray.api.schemas.openai_requests import AskedAs
from sienn_ray.api.schemas.sampling import SamplingFields
from sienn_ray.api.schemas.tools import Tools
from sienn_ray.catalog import CATALOG
from sienn_ray.errors import InvalidInputError
from sienn_ray.inference.engine import ChatMessage
from sienn_ray.training.config import ChatTemplateKwargs

MAX_COMPARED = 4
_PROMPT = "What is machine learning?"
_ADAPTER = f"file:///home/me/.sienn/storage/adapters/{JOB_ID}"

_TOO_MUCH = {"detail": "64 requests wait for it already", "status_code": 503}


class _Question(SamplingFields, ContinuationFields):
    system: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARS,
        description="System message in front of `prompt`. None is made up: where the rows had one, send it along.",
        examples=[None, "You are a helpful support agent."],
    )
    messages: Messages | None = Field(
        None,
        description="A conversation, in place of `prompt`.",
        examples=[None, [{"role": "user", "content": _PROMPT}]],
    )
    chat_template_kwargs: ChatTemplateKwargs = Field({}, description=VARIABLES, examples=[{"enable_thinking": False}])
    tools: Tools = Field(
        [],
        description="Tools that the model may call; its calls stand in the text of its answer as it writes them.",
        examples=[[]],
    )
    # Behind `messages`, since it is required where there are none.
    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARS,
        validate_default=True,
        description="What is asked.",
        examples=[_PROMPT],
    )

    @model_validator(mode="after")
    def _asks_once(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidInputError("give either prompt or messages")
        if self.messages is not None and self.system is not None:
            raise InvalidInputError("system goes with prompt; make it the first of messages, with the role 'system'")
        self.continues(self.messages or [])
        return self

    @property
    def as_asked(self) -> AskedAs:
        """See `OpenAiRequest.as_asked`."""
        tools = tuple(tool.as_rows_have_it for tool in self.tools)
        return AskedAs(tools, self.continues(self.messages or []), self.chat_template_kwargs)

    @property
    def chat_messages(self) -> tuple[ChatMessage, ...]:
        """The conversation, also where it is a single prompt."""
        if self.prompt is None:
            return tuple(message.chat_message for message in self.messages or [])
        system = () if self.system is None else (ChatMessage("system", self.system),)
        return (*system, ChatMessage("user", self.prompt))


class AskRequest(_Question):
    """A question to a fine-tuned model: a prompt, or a conversation in place of it."""

    model_config = ConfigDict(
        title="TestModelRequest",
        json_schema_extra={
            "anyOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
            ]
        },
    )

    job_id: JobId = Field(description="Job UUID with completed training.", examples=[JOB_ID])
    use_adapter: bool = Field(
        True, description="False asks the base model without the adapter, to compare.", examples=[True]
    )
    stream: bool = Field(
        False, description="Send the answer as it comes, as server-sent events.", examples=[False, True]
    )

    @field_validator("prompt")
    @classmethod
    def _is_there(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if prompt is None and not info.data.get("messages"):
            raise PydanticCustomError("missing", "Field required")
        return prompt


class Answer(ResponseBody):
    """Fields of every answer of this API."""

    prompt: str = Field(description="The prompt as it was sent; of messages, the last one.", examples=[_PROMPT])
    generated_text: str = Field(
        description="The completion alone.", examples=["Machine learning is a branch of artificial intelligence..."]
    )
    model_path: str = Field(description="The adapter that answered, or the base model's id.", examples=[_ADAPTER])
    generation_time: float = Field(
        description="Seconds at the engine, from its turn to the last token.", examples=[2.34]
    )
    timestamp: Timestamp
    rendered_prompt: str = Field(
        description="The exact text that the model read.",
        examples=[f"<|im_start|>user\n{_PROMPT}<|im_end|>\n<|im_start|>assistant\n"],
    )
    prompt_tokens: int = Field(description="Tokens of the rendered prompt.", examples=[31])
    completion_tokens: int = Field(description="Tokens that were generated.", examples=[58])
    finish_reason: FinishReason = Field(
        description="Whether the answer came to its end or was stopped at `max_new_tokens`.", examples=["stop"]
    )
    adapter_cached: bool = Field(description="Whether the adapter was loaded already.", examples=[True])


class AskResponse(Answer):
    """One answer."""

    model_config = ConfigDict(title="TestModelResponse")

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])


class CompareModelsRequest(_Question):
    """One question for a base model and adapters of it."""

    job_ids: Annotated[list[JobId], Field(min_length=1, max_length=MAX_COMPARED)] = Field(
        description="Completed jobs of one base model.", examples=[[JOB_ID]]
    )

    @model_validator(mode="after")
    def _compares_different_jobs(self) -> Self:
        if len(set(self.job_ids)) < len(self.job_ids):
            raise InvalidInputError("job_ids names a job twice; name each once")
        return self


class ComparedAnswer(Answer):
    """Answer of one of the compared models."""

    job_id: str | None = Field(description="The adapter's job; null is the base model.", examples=[JOB_ID, None])


class ComparedFailure(ResponseBody):
    """Error of one of the compared models."""

    job_id: str | None = Field(description="The adapter's job; null is the base model.", examples=[JOB_ID, None])
    model_path: str = Field(description="The adapter that was asked, or the base model's id.", examples=[_ADAPTER])
    error: ErrorResponse = Field(description="What it would have been answered with alone.")


class CompareModelsResponse(ResponseBody):
    """Answers of all compared models."""

    base_model: str = Field(description="The base model of them all.", examples=[CATALOG[0].id])
    answers: list[ComparedAnswer | ComparedFailure] = Field(
        description="The base model's first, then the adapters' in the order of `job_ids`.",
        examples=[[{"job_id": JOB_ID, "model_path": _ADAPTER, "error": _TOO_MUCH}]],
    )
