"""The bodies of requests and responses, field by field as the contract has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, field_validator

from sienn_ray.catalog import CATALOG
from sienn_ray.training.config import MAX_LEARNING_RATE, MIN_LEARNING_RATE


def _iso_milliseconds(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    PlainSerializer(_iso_milliseconds, return_type=str),
    Field(description="UTC, ISO 8601 with milliseconds.", examples=["2025-11-12T10:30:00.000Z"]),
]
JobStatusName = Literal["pending", "running", "completed", "failed"]

_DATASET_ID = "f8e7d3b2-1234-5678-9abc-def012345678"
_JOB_ID = "a1b2c3d4-5678-40ef-8123-456789abcdef"


class RequestBody(BaseModel):
    """Base of request bodies: an unknown field is an error, since it is most likely a misspelt one."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _has_whole_characters(cls, value: Any) -> Any:
        """JSON can escape half of a surrogate pair, which no tokenizer, database or response can hold."""
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("half of a surrogate pair is not a character")
        return value


class ResponseBody(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorResponse(ResponseBody):
    """Every error of this API."""

    detail: str = Field(description="What is wrong, the limit, and the way out.", examples=["Job a1b2… not found"])
    status_code: int = Field(description="The HTTP status again.", examples=[404])


class HealthResponse(ResponseBody):
    """The service answers."""

    status: Literal["ok"] = "ok"
    env: str = Field(description="SIENN_ENV of this deployment.", examples=["production"])


class UploadDatasetResponse(ResponseBody):
    """A dataset that was taken."""

    dataset_id: str = Field(examples=[_DATASET_ID])
    filename: str = Field(examples=["conversations.csv"])
    size_bytes: int = Field(examples=[102400])
    status: str = Field(examples=["uploaded"])
    preview: list[dict[str, Any]] = Field(description="The first rows as they are in the file; long values are cut.")
    created_at: Timestamp
    format: str = Field(description="The detected column set.", examples=["instruction-response"])
    columns: list[str] = Field(description="Columns of the first row.")
    num_rows: int = Field(description="Rows in the file.", examples=[1319])
    sha256: str = Field(description="Of the file as it came, in hex.")


class DatasetSummary(ResponseBody):
    """One dataset in a list."""

    id: str = Field(examples=[_DATASET_ID])
    filename: str = Field(examples=["conversations.csv"])
    size_bytes: int = Field(examples=[102400])
    status: str = Field(examples=["uploaded"])
    created_at: Timestamp
    format: str = Field(examples=["instruction-response"])
    num_rows: int = Field(examples=[1319])


class DatasetList(ResponseBody):
    """All datasets, the newest first."""

    datasets: list[DatasetSummary]


class StartFinetuningRequest(RequestBody):
    """What to fine-tune, and how."""

    dataset_id: str = Field(description="Dataset UUID.", examples=[_DATASET_ID])
    model_name: str = Field(CATALOG[0].id, description="Base model: a hub id.", examples=[CATALOG[0].id])
    learning_rate: float = Field(2e-4, ge=MIN_LEARNING_RATE, le=MAX_LEARNING_RATE, description="Peak learning rate.")
    num_epochs: int = Field(3, ge=1, le=10, description="Passes over the dataset.")
    batch_size: int = Field(4, ge=1, le=32, description="Rows in one optimizer step.")
    max_length: int = Field(512, ge=128, le=2048, description="Tokens in one row; longer ones are cut.")
    seed: int = Field(42, ge=0, lt=2**31, description="Seed of initial weights, order and dropout.")


class StartFinetuningResponse(ResponseBody):
    """A job that was taken."""

    job_id: str = Field(examples=[_JOB_ID])
    status: JobStatusName = Field(examples=["pending"])
    dataset_id: str = Field(examples=[_DATASET_ID])
    message: str = Field(examples=["Fine-tuning job submitted successfully"])
    created_at: Timestamp


class JobSummary(ResponseBody):
    """One job in a list."""

    job_id: str = Field(examples=[_JOB_ID])
    dataset_id: str = Field(examples=[_DATASET_ID])
    status: JobStatusName = Field(examples=["running"])
    progress: int = Field(ge=0, le=100, description="Percent.", examples=[45])
    message: str = Field(examples=["Training in progress: Epoch 2/3"])
    created_at: Timestamp
    updated_at: Timestamp


class JobList(ResponseBody):
    """All jobs, the newest first."""

    jobs: list[JobSummary]
    count: int = Field(description="Number of jobs.", examples=[42])


class JobMeta(ResponseBody):
    """Facts about a run; further ones (phase, tokens_per_s, time_left_s, eval_loss, ...) come as it goes on."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_name: str = Field(description="Base model.", examples=[CATALOG[0].id])
    current_epoch: int = Field(description="1-based; 0 before the first step.", examples=[2])
    total_epochs: int = Field(examples=[3])
    current_loss: float | None = Field(description="Loss of the last step; null before it.", examples=[0.523])
    model_path: str = Field(description="Where the adapter is, or will be once the job is completed.")


class TrainingStatus(JobSummary):
    """A job with all that is known of its run."""

    meta: JobMeta


class TestModelRequest(RequestBody):
    """A prompt for a fine-tuned model."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    job_id: str = Field(description="Job UUID with completed training.", examples=[_JOB_ID])
    prompt: str = Field(min_length=1, max_length=100_000, examples=["What is machine learning?"])
    max_new_tokens: int = Field(200, ge=10, le=2000, description="Tokens to generate at the most.")
    temperature: float = Field(0.7, ge=0.1, le=2.0, description="Sampling temperature.")
    top_p: float = Field(0.95, gt=0.0, le=1.0, description="Nucleus sampling threshold.")
    repetition_penalty: float = Field(1.2, ge=0.5, le=5.0, description="Penalty for repeated tokens; 1.0 is none.")
    do_sample: bool = Field(True, description="Sample, or take the likeliest token each time.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Makes a sampled answer repeatable.")
    use_adapter: bool = Field(True, description="False asks the base model without the adapter, to compare.")


class TestModelResponse(ResponseBody):
    """One answer."""

    __test__ = False

    job_id: str = Field(examples=[_JOB_ID])
    prompt: str = Field(examples=["What is machine learning?"])
    generated_text: str = Field(description="The completion alone.")
    model_path: str = Field(description="The adapter that answered, or the base model's id.")
    generation_time: float = Field(
        description="Seconds at the engine, from its turn to the last token.", examples=[2.34]
    )
    timestamp: Timestamp
    rendered_prompt: str = Field(description="The exact text that the model read.")
    prompt_tokens: int = Field(examples=[31])
    completion_tokens: int = Field(examples=[58])
    finish_reason: Literal["stop", "length"] = Field(description="Whether the model ended by itself.")
    adapter_cached: bool = Field(description="Whether the adapter was loaded already.")


class BaseModelSummary(ResponseBody):
    """A base model that is offered."""

    id: str = Field(examples=[CATALOG[0].id])
    name: str = Field(examples=[CATALOG[0].name])
    vram_required_gb: int = Field(examples=[2])
    quality_rating: int = Field(ge=1, le=5)
    speed_rating: int = Field(ge=1, le=5)
    batch_size: int = Field(description="A batch size known to fit.")
    max_length: int = Field(description="A row length known to fit.")
    learning_rate: float = Field(description="A learning rate known to work.")
    description: str
    is_cached: bool = Field(description="Whether the weights are on this machine.")
    cache_size_bytes: int | None = Field(description="Bytes that they take here.")


class BaseModelList(ResponseBody):
    """The catalog."""

    models: list[BaseModelSummary]
