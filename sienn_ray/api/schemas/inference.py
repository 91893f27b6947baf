"""Bodies of answers from a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sienn_ray.api.ids import JobId
from sienn_ray.api.schemas.common import JOB_ID, RequestBody, ResponseBody, Timestamp

_PROMPT = "What is machine learning?"


class TestModelRequest(RequestBody):
    """A prompt for a fine-tuned model."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    job_id: JobId = Field(description="Job UUID with completed training.", examples=[JOB_ID])
    prompt: str = Field(min_length=1, max_length=100_000, description="What the model is asked.", examples=[_PROMPT])
    max_new_tokens: int = Field(200, ge=10, le=2000, description="Tokens to generate at the most.", examples=[200])
    temperature: float = Field(0.7, ge=0.1, le=2.0, description="Sampling temperature.", examples=[0.7])
    top_p: float = Field(0.95, gt=0.0, le=1.0, description="Nucleus sampling threshold.", examples=[0.95])
    repetition_penalty: float = Field(
        1.2, ge=0.5, le=5.0, description="Penalty for repeated tokens; 1.0 is none.", examples=[1.2]
    )
    do_sample: bool = Field(True, description="Sample, or take the likeliest token each time.", examples=[True])
    # The largest integer that every JSON parser holds exactly.
    seed: int | None = Field(
        None, ge=0, le=2**53 - 1, description="Makes a sampled answer repeatable.", examples=[None, 42]
    )
    use_adapter: bool = Field(
        True, description="False asks the base model without the adapter, to compare.", examples=[True]
    )


class TestModelResponse(ResponseBody):
    """One answer."""

    __test__ = False

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    prompt: str = Field(description="The prompt as it was sent.", examples=[_PROMPT])
    generated_text: str = Field(
        description="The completion alone.", examples=["Machine learning is a branch of artificial intelligence..."]
    )
    model_path: str = Field(
        description="The adapter that answered, or the base model's id.",
        examples=[f"file:///home/me/.sienn/storage/adapters/{JOB_ID}"],
    )
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
    finish_reason: Literal["stop", "length"] = Field(
        description="Whether the model ended by itself or was stopped at `max_new_tokens`.", examples=["stop"]
    )
    adapter_cached: bool = Field(description="Whether the adapter was loaded already.", examples=[True])
