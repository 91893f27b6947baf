"""Bodies about the start of a fine-tune."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from sienn_ray.api.schemas.common import DATASET_ID, JOB_ID, OTHER_DATASET_ID, RequestBody, ResponseBody, Timestamp
from sienn_ray.api.schemas.hyperparameters import Hyperparameters
from sienn_ray.api.schemas.ids import DatasetId, JobId
from sienn_ray.api.schemas.jobs import JobStatusName, PriorityName
from sienn_ray.api.schemas.revisions import REVISION_WORDS, Revision
from sienn_ray.catalog import CATALOG
from sienn_ray.datasets.weights import MAX_DATASETS, Weight, WeightedDataset
from sienn_ray.fault_words import words_of
from sienn_ray.jobs.naming import (
    LABEL_KEY_PATTERN,
    MAX_LABEL_VALUE_CHARS,
    MAX_LABELS,
    MAX_NAME_CHARS,
    PRINTABLE_PATTERN,
)
from sienn_ray.training.config import TrainingConfig

JobName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARS, pattern=PRINTABLE_PATTERN)]
_LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
_LabelValue = Annotated[str, StringConstraints(max_length=MAX_LABEL_VALUE_CHARS, pattern=PRINTABLE_PATTERN)]
Labels = dict[_LabelKey, _LabelValue]


_EXAMPLE_MIXTURE = [{"dataset_id": DATASET_ID, "weight": 1.0}, {"dataset_id": OTHER_DATASET_ID, "weight": 0.25}]
# What the validators below check, as far as a schema can say it.
_SUBJECTS: list[Any] = [
    {"required": ["dataset_id"], "properties": {"dataset_id": {"type": "string"}}},
    {"required": ["datasets"], "properties": {"datasets": {"type": "array"}}},
]
_EXCLUDED: dict[str, Any] = {
    "anyOf": [
        {"not": {"anyOf": _SUBJECTS}},
        {"allOf": _SUBJECTS},
        {
            "required": ["validation_split", "validation_dataset_id"],
            "properties": {"validation_dataset_id": {"type": "string"}},
        },
        {
            "required": ["validation_split", "early_stopping_patience"],
            "properties": {"validation_split": {"const": 0}, "early_stopping_patience": {"type": "integer"}},
        },
        {
            "required": ["quantization", "sharding"],
            "properties": {"quantization": {"const": "nf4"}, "sharding": {"const": "always"}},
        },
    ]
}


class MixedDataset(RequestBody):
    """A dataset within a mixture."""

    dataset_id: DatasetId = Field(description="Dataset UUID.", examples=[DATASET_ID])
    weight: Weight = Field(
        1.0,
        description="How often an epoch has each of its rows. Of 2.5, two are whole passes; for the half, each epoch "
        "takes half of the rows, chosen by `seed`, none a second time before all others had their turn.",
        examples=[0.25],
    )


class _Subject(RequestBody):
    """What to fine-tune, and on what."""

    dataset_id: DatasetId | None = Field(
        None,
        description="Dataset UUID; each version of a dataset has its own. Required, unless there are `datasets`.",
        examples=[DATASET_ID],
    )
    datasets: list[MixedDataset] | None = Field(
        None,
        min_length=1,
        max_length=MAX_DATASETS,
        description="Datasets whose rows are mixed by weight, in place of `dataset_id`; they hold rows of one kind.",
        examples=[None, _EXAMPLE_MIXTURE],
    )
    validation_dataset_id: DatasetId | None = Field(
        None,
        description="Another dataset whose rows are evaluated on; then all rows of the others are trained on. Without "
        "it, `validation_split` takes its share of each of them.",
        examples=[None],
    )
    from_job: JobId | None = Field(
        None,
        description="Start from the adapter of this completed job, rather than from the base model: continue an SFT, "
        "or learn preferences after it, which `dpo`, `ipo` and `kto` then compare with that adapter. Base model, "
        "revision, `lora_r`, `lora_alpha`, `target_modules`, `use_rslora`, `use_dora`, `quantization`, "
        "`chat_template_kwargs` and `special_tokens` are its.",
        examples=[None],
    )
    model_name: str = Field(
        CATALOG[0].id,
        description="Base model to fine-tune: a hub id; with `from_job` by default that job's.",
        examples=[CATALOG[0].id],
    )
    revision: Revision | None = Field(None, description=REVISION_WORDS, examples=[None])


# The fields of the last base are the first.
class StartFinetuningRequest(Hyperparameters, _Subject):
    """A fine-tune to start: its dataset, its base model, its hyperparameters."""

    model_config = ConfigDict(json_schema_extra={"not": _EXCLUDED})

    name: JobName | None = Field(None, description="A name for people.", examples=["Ferry assistant"])
    labels: Labels = Field(
        default_factory=dict,
        max_length=MAX_LABELS,
        description="Labels to find the job by: `GET /api/jobs?label=team=support`.",
        examples=[{"team": "support"}],
        json_schema_extra={"additionalProperties": False},
    )

    priority: PriorityName = Field(
        "normal",
        description="Among the jobs of the same owner, a level counts as much as a day of waiting; `urgent`, for "
        "admins alone, goes ahead of all owners' jobs.",
        examples=["normal"],
    )

    @model_validator(mode="after")
    def _trains_on_something(self) -> Self:
        if self.dataset_id is None and self.datasets is None:
            raise ValueError("dataset_id: Field required")  # in the words that it always had
        if self.dataset_id is not None and self.datasets is not None:
            raise ValueError("dataset_id and datasets exclude each other; leave dataset_id out to mix several datasets")
        return self

    @property
    def trained_on(self) -> tuple[WeightedDataset, ...]:
        """Return the datasets to train on."""
        mixed = self.datasets or [MixedDataset(dataset_id=self.dataset_id or "")]
        return tuple(WeightedDataset(dataset_id=each.dataset_id, weight=each.weight) for each in mixed)

    @model_validator(mode="after")
    def _evaluates_on_one_thing(self) -> Self:
        if self.validation_dataset_id is not None and "validation_split" in self.model_fields_set:
            raise ValueError("validation_split and validation_dataset_id exclude each other; leave one of them out")
        return self

    @model_validator(mode="after")
    def _can_stop_early(self) -> Self:
        if self.early_stopping_patience is None or self.validation_dataset_id is not None:
            return self
        if self.validation_split == 0:
            raise ValueError(
                f"early_stopping_patience={self.early_stopping_patience} needs rows to evaluate on, and "
                "validation_split is 0; raise it, or name a validation_dataset_id"
            )
        return self

    @model_validator(mode="after")
    def _is_a_configuration(self) -> Self:
        try:
            self.config()
        except ValidationError as error:
            raise ValueError("; ".join(map(words_of, error.errors()))) from error
        return self

    def config(self) -> TrainingConfig:
        """Return the configuration as the training program takes it."""
        config = self.config_for(self.model_name)
        # Rows of their own to evaluate on: none are held out.
        return config if self.validation_dataset_id is None else config.model_copy(update={"validation_split": 0.0})


class StartFinetuningResponse(ResponseBody):
    """A job that was taken."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    status: JobStatusName = Field(
        description="`pending`; where the request is a repeated one, what the job is by now.", examples=["pending"]
    )
    dataset_id: str = Field(description="The dataset that it trains on; the first of several.", examples=[DATASET_ID])
    message: str = Field(description="That it was taken.", examples=["Fine-tuning job submitted successfully"])
    created_at: Timestamp
    num_long_rows: int | None = Field(
        description="Rows with more than `max_length` tokens, where the dataset's statistics were asked for before. "
        "Null where that isn't known yet: the job tells it by an event and in its status, once it has read the rows.",
        examples=[None],
    )
    warning: str | None = Field(
        description="What to know of the rows: special tokens in their text, what becomes of long ones, and whether a "
        "dataset has a newer version; null without any of that, and where it isn't known.",
        examples=[None],
    )
    warnings: list[str] = Field(
        description="All that speaks against the run as it was asked for, `warning` among it: a learning rate or a "
        "number of rows that preferences aren't learned with, hyperparameters that its method doesn't read. They "
        "are the job's events as well; a repeated request isn't told again.",
        examples=[[]],
    )
