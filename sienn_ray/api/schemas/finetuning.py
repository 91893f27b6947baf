"""Bodies about the start of a fine-tune."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from sienn_ray.api.ids import DatasetId
from sienn_ray.api.schemas.common import DATASET_ID, JOB_ID, RequestBody, ResponseBody, Timestamp
from sienn_ray.api.schemas.jobs import JobStatusName
from sienn_ray.catalog import CATALOG
from sienn_ray.training.config import LoraSettings, LrScheduler, TargetModules, TrainingConfig

MAX_LABELS = 32
# No control characters, no line ends, none that turn the direction of writing or can't be seen; joined emoji may stay.
_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
PRINTABLE = rf"^{_PRINTABLE}*$"
_LABEL_KEY = "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
# A label as a filter has it: `key=value`.
LABEL_PATTERN = f"^{_LABEL_KEY}={_PRINTABLE}{{0,255}}$"

JobName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]
_LabelKey = Annotated[str, StringConstraints(pattern=f"^{_LABEL_KEY}$")]
_LabelValue = Annotated[str, StringConstraints(max_length=255, pattern=PRINTABLE)]
Labels = dict[_LabelKey, _LabelValue]


def _as_in(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Default and limits of a field of the training configuration."""
    field = model.model_fields[name]
    bounds = ("ge", "gt", "le", "lt")
    limits = {bound: getattr(limit, bound) for limit in field.metadata for bound in bounds if hasattr(limit, bound)}
    return {"default": field.default, **limits}


def _names_are_unique(schema: dict[str, Any]) -> None:
    """Say so in the schema of the target modules, too."""
    for kind in schema["oneOf"]:
        if kind["type"] == "array":
            kind["uniqueItems"] = True


class StartFinetuningRequest(RequestBody):
    """What to fine-tune, and how."""

    model_config = ConfigDict(
        # What `_evaluates_on_one_thing` checks.
        json_schema_extra={
            "not": {
                "required": ["validation_split", "validation_dataset_id"],
                "properties": {"validation_dataset_id": {"type": "string"}},
            }
        }
    )

    dataset_id: DatasetId = Field(description="Dataset UUID.", examples=[DATASET_ID])
    model_name: str = Field(CATALOG[0].id, description="Base model to fine-tune: a hub id.", examples=[CATALOG[0].id])
    learning_rate: float = Field(
        **_as_in(TrainingConfig, "learning_rate"), description="Peak learning rate.", examples=[2e-4]
    )
    num_epochs: int = Field(
        **_as_in(TrainingConfig, "num_epochs"), description="Passes over the dataset.", examples=[3]
    )
    batch_size: int = Field(
        **_as_in(TrainingConfig, "batch_size"), description="Rows in one forward pass, over all workers.", examples=[4]
    )
    max_length: int = Field(
        **_as_in(TrainingConfig, "max_length"),
        description="Tokens in one row, prompt and completion; longer ones are cut.",
        examples=[512],
    )
    gradient_accumulation_steps: int = Field(
        **_as_in(TrainingConfig, "gradient_accumulation_steps"),
        description="Forward passes whose gradients make one optimizer step.",
        examples=[1],
    )
    warmup_ratio: float = Field(
        **_as_in(TrainingConfig, "warmup_ratio"),
        description="Share of the steps in which the learning rate rises to its peak.",
        examples=[0.06],
    )
    weight_decay: float = Field(
        **_as_in(TrainingConfig, "weight_decay"), description="Decay of the adapter's weights (AdamW).", examples=[0.0]
    )
    lr_scheduler: LrScheduler = Field(
        **_as_in(TrainingConfig, "lr_scheduler"),
        description="How the learning rate goes on after its rise.",
        examples=["cosine"],
    )
    validation_split: float = Field(
        **_as_in(TrainingConfig, "validation_split"),
        description="Share of the rows held out for evaluation; not together with `validation_dataset_id`.",
        examples=[0.1],
    )
    validation_dataset_id: DatasetId | None = Field(
        None,
        description="Another dataset whose rows are evaluated on; then all rows of `dataset_id` are trained on.",
        examples=[None],
    )
    num_workers: int | None = Field(
        **_as_in(TrainingConfig, "num_workers"),
        description="Ray Train workers; null is what the server is set to (SIENN_TRAINING_NUM_WORKERS).",
        examples=[None],
    )
    seed: int = Field(
        **_as_in(TrainingConfig, "seed"), description="Seed of initial weights, order and dropout.", examples=[42]
    )
    lora_r: int = Field(**_as_in(LoraSettings, "r"), description="Rank of the adapter's matrices.", examples=[16])
    lora_alpha: int = Field(
        **_as_in(LoraSettings, "lora_alpha"),
        description="The adapter counts `lora_alpha / lora_r` times.",
        examples=[32],
    )
    lora_dropout: float = Field(
        **_as_in(LoraSettings, "lora_dropout"),
        description="Share of the adapter's inputs that are dropped in training.",
        examples=[0.05],
    )
    target_modules: TargetModules = Field(
        **_as_in(LoraSettings, "target_modules"),
        description="Ends of module names that get an adapter, or `all-linear`: every linear one but the output head.",
        examples=["all-linear", ["q_proj", "v_proj"]],
        json_schema_extra=_names_are_unique,
    )
    name: JobName | None = Field(None, description="A name for people.", examples=["Ferry assistant"])
    labels: Labels = Field(
        default_factory=dict,
        max_length=MAX_LABELS,
        description="Labels to find the job by: `GET /api/jobs?label=team=support`.",
        examples=[{"team": "support"}],
        json_schema_extra={"additionalProperties": False},
    )

    @model_validator(mode="after")
    def _evaluates_on_one_thing(self) -> Self:
        if self.validation_dataset_id is not None and "validation_split" in self.model_fields_set:
            raise ValueError("validation_split and validation_dataset_id exclude each other; leave one of them out")
        return self

    def config(self) -> TrainingConfig:
        """The same as the training program takes it."""
        own = TrainingConfig.model_fields.keys() & type(self).model_fields.keys()
        lora = LoraSettings(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self.target_modules,
        )
        config = TrainingConfig(base_model=self.model_name, lora=lora, **self.model_dump(include=own))
        # Rows of their own to evaluate on: none are held out.
        return config if self.validation_dataset_id is None else config.model_copy(update={"validation_split": 0.0})


def hyperparameters(config: TrainingConfig) -> dict[str, Any]:
    """A job's configuration under the request's field names."""
    lora = config.lora.model_dump(mode="json")
    own = TrainingConfig.model_fields.keys() & StartFinetuningRequest.model_fields.keys()
    return {**config.model_dump(mode="json", include=own), "lora_r": lora.pop("r"), **lora}


class StartFinetuningResponse(ResponseBody):
    """A job that was taken."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    status: JobStatusName = Field(
        description="`pending`; where the request is a repeated one, what the job is by now.", examples=["pending"]
    )
    dataset_id: str = Field(description="The dataset that it trains on.", examples=[DATASET_ID])
    message: str = Field(description="That it was taken.", examples=["Fine-tuning job submitted successfully"])
    created_at: Timestamp
