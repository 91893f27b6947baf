"""Records of the tracker: datasets, jobs, their events and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sienn_ray import storage_keys
from sienn_ray.access.principals import ADMIN_OWNER
from sienn_ray.datasets.ingest import IngestReport
from sienn_ray.datasets.preview import preview_string
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.datasets.schema import row_kind
from sienn_ray.datasets.statistics_schema import StatisticsRequest
from sienn_ray.datasets.weights import WeightedDataset
from sienn_ray.errors import FailureReason
from sienn_ray.template_check.verdict import TemplateRequest
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.reporting import Phase, RunProgress
from sienn_ray.training.summary import RunSummary

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some records of a list, the newest first.

    Args:
        records: This page.
        count: Records on all pages.
        next_cursor: Where the next page begins; None after the last one.
    """

    records: list[T]
    count: int
    next_cursor: str | None


class JobStatus(StrEnum):
    """Statuses of a job."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Return whether the job has ended."""
        return self in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}

    @property
    def is_at_rest(self) -> bool:
        """Return whether nothing happens to the job any more, unless a user asks for it."""
        return self.is_final or self is JobStatus.PAUSED


class JobPriority(IntEnum):
    """Levels of priority: within an owner, but for `URGENT`, which goes ahead of all others' jobs."""

    LOW = -1
    NORMAL = 0
    HIGH = 1
    # For admins alone.
    URGENT = 2


class JobPhase(StrEnum):
    """A step of a job within its status: the phases that its run reports, then those that the tracker sets."""

    STARTING = Phase.STARTING.value
    LOADING_DATA = Phase.LOADING_DATA.value
    WAITING_FOR_RESOURCES = Phase.WAITING_FOR_RESOURCES.value
    LOADING_MODEL = Phase.LOADING_MODEL.value
    TRAINING = Phase.TRAINING.value
    EVALUATING = Phase.EVALUATING.value
    SAVING = Phase.SAVING.value
    # Its run is to write a checkpoint and end.
    PAUSING = "pausing"
    PAUSED = "paused"
    # Its run is being ended, since the job is cancelled or didn't pause in time.
    STOPPING = "stopping"
    # It isn't to be paused any more, and its run hasn't reported since.
    RESUMING = "resuming"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"


def utc_now() -> datetime:
    """The current time, with its zone."""
    return datetime.now(UTC)


class FileReading(BaseModel):
    """Options, guesses and notes of the reading of a dataset's file; see `IngestReport`.

    `options` are those of `ReadingOptions` that were given.
    """

    model_config = ConfigDict(frozen=True)

    options: dict[str, Any] = Field(default_factory=dict)
    guessed: dict[str, str] = Field(default_factory=dict)
    ignored_columns: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class VersionChange(StrEnum):
    """Ways to make a new version of a dataset."""

    APPEND = "append"
    REPLACE = "replace"


class DatasetRecord(BaseModel):
    """One version of a dataset; most have no other."""

    model_config = ConfigDict(frozen=True)

    id: str
    filename: str
    size_bytes: int
    sha256: str
    format: str
    num_rows: int
    columns: list[str]
    preview: list[dict[str, Any]]
    status: str = "uploaded"
    # The owner's oldest dataset with the same bytes that was there when this one came.
    duplicate_of: str | None = None
    owner: str = ADMIN_OWNER
    reading: FileReading = FileReading()
    # Versions of a dataset are records of their own, which the first one's id holds together.
    version: int = 1
    version_of: str | None = None
    # How a later version was made, and of the rows of which one, if they were appended to some.
    change: VersionChange | None = None
    appended_to: str | None = None
    # On the way to the database alone: the version that has to be the newest for this one to be made.
    base_version: int | None = Field(default=None, exclude=True)
    # The repository that the rows were imported from, and the commit that it was at.
    source: str | None = None
    source_revision: str | None = None
    created_at: datetime

    @property
    def first_version_id(self) -> str:
        """Return the id of the dataset's first version."""
        return self.version_of or self.id

    @classmethod
    def of_report(
        cls,
        dataset_id: str,
        filename: str,
        size_bytes: int,
        sha256: str,
        report: IngestReport,
        owner: str = ADMIN_OWNER,
        *,
        options: ReadingOptions,
        remarks: Sequence[str] = (),
    ) -> DatasetRecord:
        """The record of a file that has just been checked; `remarks` are notes beside those of the report."""
        return cls(
            id=dataset_id,
            filename=filename,
            size_bytes=size_bytes,
            sha256=sha256,
            format=report.format,
            num_rows=report.num_rows,
            columns=list(report.columns),
            preview=report.preview,
            owner=owner,
            reading=FileReading(
                options=options.as_fields(),
                guessed=report.guessed,
                ignored_columns=list(report.ignored_columns),
                notes=[*map(preview_string, remarks), *report.notes],
            ),
            created_at=utc_now(),
        )

    def statistics_request(
        self, base_model: str, max_length: int, revision: str | None = None, options: RenderOptions | None = None
    ) -> StatisticsRequest:
        """Return the request for its statistics under a base model's tokenizer, of a commit if one is named."""
        return StatisticsRequest(
            dataset_id=self.id,
            base_model=base_model,
            max_length=max_length,
            row_kind=row_kind(self.format),
            num_columns=len(self.columns),
            revision=revision,
            options=options or RenderOptions(),
        )

    def template_request(self, config: TrainingConfig) -> TemplateRequest:
        """Return the request for the check of its rows against the base model's chat template."""
        return TemplateRequest(
            dataset_id=self.id,
            num_rows=self.num_rows,
            row_kind=row_kind(self.format),
            base_model=config.base_model,
            revision=config.base_model_revision,
            options=config.render_options,
            is_auto=config.is_auto,
        )


class JobRecord(BaseModel):
    """One fine-tune that a user asked for."""

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str = ADMIN_OWNER
    # The first one of a mixture.
    dataset_id: str
    # What it trains on; empty of a job of before there were mixtures.
    datasets: tuple[WeightedDataset, ...] = ()
    # Rows to evaluate on, instead of a share of the dataset.
    validation_dataset_id: str | None = None
    # The job whose adapter it starts from, and those that this one goes back to, the oldest first.
    from_job: str | None = None
    lineage: tuple[str, ...] = ()
    # Storage key of the adapter that it starts from; None where it starts from the base model.
    start_key: str | None = None
    name: str | None = None
    labels: dict[str, str] = {}
    priority: JobPriority = JobPriority.NORMAL
    # The API key that it was asked for with, if there was one.
    key_id: str | None = None
    # What makes a repeated request one job: the client's key, and the request's hash to tell a reused key.
    idempotency_key: str | None = None
    request_hash: str | None = None
    config: TrainingConfig
    # What speaks against it, told once as events; not kept in the record.
    warnings: tuple[str, ...] = ()
    status: JobStatus = JobStatus.PENDING
    progress: int = 0
    message: str = "Fine-tuning job submitted successfully"
    failure_reason: FailureReason | None = None
    attempt: int = 0
    # Attempts before the last retry by a user.
    attempt_base: int = 0
    # Runs lost in a row without a newer step between them, and the step that the last of them had come to.
    num_losses: int = 0
    loss_step: int = 0
    # The end of the log of a run that failed, without terminal codes.
    log_tail: str | None = None
    submission_id: str | None = None
    phase: JobPhase | None = None
    # Since when a running job is to be paused.
    pause_requested_at: datetime | None = None
    run: RunProgress = RunProgress()
    # Of a completed job.
    summary: RunSummary | None = None
    # Facts of earlier versions.
    other_facts: dict[str, Any] = {}
    # 1-based, and not kept: a waiting job has it when it is read.
    queue_position: int | None = None
    created_at: datetime
    updated_at: datetime
    # First start and last end; a cancelled job has no end while its run is being stopped.
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @field_validator("config", mode="before")
    @classmethod
    def _as_it_was_submitted(cls, config: Any) -> Any:
        """Earlier versions had no `special_tokens`, and read those in text as tokens."""
        return {"special_tokens": "tokens", **config} if isinstance(config, dict) else config

    def is_running(self, attempt: int) -> bool:
        """Return whether this very attempt is the one that runs."""
        return self.status is JobStatus.RUNNING and self.attempt == attempt

    def awaits(self, attempt: int) -> bool:
        """Return whether this attempt is the one that runs, or that is about to.

        A job waits with the attempt before while Ray's job API hasn't confirmed a start.
        """
        return self.is_running(attempt) or (self.status is JobStatus.PENDING and self.attempt < attempt)

    @property
    def num_losses_with_one_more(self) -> int:
        """Losses in a row, were its run lost now; the first one after a newer step counts as one."""
        return 1 if (self.run.current_step or 0) > self.loss_step else self.num_losses + 1

    @property
    def is_pausing(self) -> bool:
        """Return whether it runs, and is to be paused."""
        return self.status is JobStatus.RUNNING and self.pause_requested_at is not None

    @property
    def is_stopping(self) -> bool:
        """Return whether its run is being ended: of a cancelled job, one that didn't pause in time, or a silent one."""
        return self.phase is JobPhase.STOPPING

    @property
    def trained_on(self) -> tuple[WeightedDataset, ...]:
        """Return the datasets that it trains on."""
        return self.datasets or (WeightedDataset(dataset_id=self.dataset_id),)

    @property
    def is_mixture(self) -> bool:
        """Return whether rows are mixed by weights, rather than those of one dataset taken as they are."""
        return len(self.trained_on) > 1 or self.trained_on[0].weight != 1.0

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """Return the ids of all datasets that it reads."""
        evaluated = () if self.validation_dataset_id is None else (self.validation_dataset_id,)
        return (*(dataset.dataset_id for dataset in self.trained_on), *evaluated)

    @property
    def adapter_key(self) -> str:
        """Storage key of the published adapter."""
        return storage_keys.adapter_key(self.id)

    @property
    def checkpoints_key(self) -> str:
        """Storage key of what a run resumes from."""
        return storage_keys.checkpoints_key(self.id)


@dataclass(frozen=True)
class JobQuery:
    """A filter over jobs; None and empty mean any.

    Args:
        status: Status.
        dataset_id: Dataset that they train or evaluate on.
        base_model: Hub id.
        name: The name that the user gave.
        owner: Whose they are.
        labels: Labels that all have to be there.
        limit: Jobs at the most; None gives all.
        cursor: `JobPage.next_cursor` of the page before.
    """

    status: JobStatus | None = None
    dataset_id: str | None = None
    base_model: str | None = None
    name: str | None = None
    owner: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    cursor: str | None = None


@dataclass(frozen=True)
class JobPage:
    """Some of the jobs that a query fits, the newest first.

    Args:
        jobs: This page.
        count: Jobs that the query fits, on all pages.
        next_cursor: Where the next page begins; None after the last one.
    """

    jobs: list[JobRecord]
    count: int
    next_cursor: str | None


class JobEvent(BaseModel):
    """An event of a job; `seq` rises over all jobs."""

    model_config = ConfigDict(frozen=True)

    seq: int
    kind: str
    message: str
    data: dict[str, Any] = {}
    created_at: datetime


class MetricPoint(BaseModel):
    """One point of a job's curves; `step` counts optimizer steps that are done."""

    model_config = ConfigDict(frozen=True)

    step: int
    epoch: int
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_s: float | None = None
    # Of a loss over preferences; see `training.rewards`.
    rewards_chosen: float | None = None
    rewards_rejected: float | None = None
    rewards_margins: float | None = None
    rewards_accuracies: float | None = None
    eval_rewards_chosen: float | None = None
    eval_rewards_rejected: float | None = None
    eval_rewards_margins: float | None = None
    eval_rewards_accuracies: float | None = None
    created_at: datetime


@dataclass(frozen=True)
class Overview:
    """Numbers over all jobs and datasets.

    Args:
        num_jobs: Jobs by status, each status present.
        num_completed_24h: Jobs that were completed within the last 24 hours.
        num_failed_24h: Jobs that failed within the last 24 hours.
        avg_training_s: Mean seconds from the first start to the end of completed jobs; None without any.
        num_datasets: Datasets.
        datasets_size_bytes: Bytes of their files.
    """

    num_jobs: dict[JobStatus, int]
    num_completed_24h: int
    num_failed_24h: int
    avg_training_s: float | None
    num_datasets: int
    datasets_size_bytes: int


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of a thread that supervises.

    Args:
        what: What it looks after: `jobs` or `exports`.
        age_s: Seconds since its last step ended, or since it began.
        limit_s: Seconds after which it counts as stuck.
    """

    what: str
    age_s: float
    limit_s: float

    @property
    def is_stuck(self) -> bool:
        """Return whether the last step is longer ago than any step takes."""
        return self.age_s > self.limit_s


@dataclass(frozen=True)
class TrackerHealth:
    """Health of the tracker and its database.

    Args:
        database: `SQLite` or `PostgreSQL`.
        database_response_s: Seconds that a trivial query took; None when it failed.
        database_error: Why it failed.
        started_at: When this tracker process started.
        gcs: What keeps Ray's own state: `Ray GCS`, or `Ray GCS with Redis`.
        heartbeats: Of the threads that look after jobs and exports.
    """

    database: str
    database_response_s: float | None
    database_error: str | None
    started_at: datetime
    gcs: str
    heartbeats: tuple[Heartbeat, ...] = ()
