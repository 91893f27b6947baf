"""Parts that answers of the OpenAI API share, its models, and its errors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sienn_ray.api.schemas.common import JOB_ID, ResponseBody
from sienn_ray.catalog import CATALOG

CREATED = 1_762_943_400
MODEL_FIELD = Field(description="The model as the request names it.", examples=[JOB_ID])
CREATED_FIELD = Field(description="When it was asked, in seconds since 1970.", examples=[CREATED])
FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]
FINISH_REASON = "Whether the answer came to its end or was stopped at its most tokens."


class PromptTokensDetails(ResponseBody):
    """Tokens of the prompts that cost less."""

    cached_tokens: int = Field(description="Tokens that were there from an earlier request.", examples=[0])


class Usage(ResponseBody):
    """Tokens that were read and written."""

    prompt_tokens: int = Field(description="Tokens of the prompts, each counted once.", examples=[31])
    completion_tokens: int = Field(description="Tokens of all answers.", examples=[58])
    total_tokens: int = Field(description="Both together.", examples=[89])
    prompt_tokens_details: PromptTokensDetails = Field(description="More about the prompts' tokens.")


class Model(ResponseBody):
    """A model that can be asked: a base model, or an adapter."""

    id: str = Field(description="What `model` takes: a hub id, or a job's id.", examples=[JOB_ID])
    object: Literal["model"] = Field("model", description="The kind of this object.")
    created: int = Field(
        description="When the adapter was there, in seconds since 1970; 0 for a base model.", examples=[CREATED]
    )
    owned_by: str = Field(description="The owner on the hub; `sienn_ray` for adapters.", examples=["sienn_ray"])
    root: str = Field(description="The base model's hub id.", examples=[CATALOG[0].id])
    parent: str | None = Field(description="The base model that an adapter belongs to.", examples=[CATALOG[0].id, None])


class ModelList(ResponseBody):
    """Everything that can be asked."""

    object: Literal["list"] = Field("list", description="The kind of this object.")
    data: list[Model] = Field(description="Base models, then adapters, the newest first.")


class OpenAiError(ResponseBody):
    """An error, for people and for programs."""

    message: str = Field(
        description="What is wrong, the limit, and the way out.", examples=["The model 'gpt-4' does not exist here"]
    )
    type: str = Field(description="The kind of error.", examples=["invalid_request_error"])
    param: str | None = Field(description="The field that is wrong.", examples=["model", None])
    code: str | None = Field(description="What is wrong, for programs.", examples=["model_not_found", None])


class OpenAiErrorResponse(ResponseBody):
    """Every error under /v1."""

    error: OpenAiError = Field(description="What is wrong.")
