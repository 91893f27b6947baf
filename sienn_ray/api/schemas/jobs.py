"""Bodies about jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field

from sienn_ray.api.schemas.common import DATASET_ID, JOB_ID, Inline, ResponseBody, Timestamp
from sienn_ray.api.schemas.revisions import REVISION
from sienn_ray.catalog import CATALOG
from sienn_ray.jobs.schema import JobPriority, JobStatus

JobStatusName = Annotated[JobStatus, Inline()]
PriorityName = Literal["low", "normal", "high", "urgent"]


_EXAMPLE_DATASET = {
    "dataset_id": DATASET_ID,
    "version": 1,
    "weight": 1.0,
    "rows_per_epoch": None,
    "rows_seen": None,
}


class JobSummary(ResponseBody):
    """One job in a list."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    dataset_id: str = Field(description="The dataset that it trains on.", examples=[DATASET_ID])
    status: JobStatusName = Field(description="Where it stands.", examples=["running"])
    progress: int = Field(ge=0, le=100, description="Percent.", examples=[45])
    message: str = Field(
        description="What it does, or how it ended, in one sentence.", examples=["Training in progress: Epoch 2/3"]
    )
    created_at: Timestamp
    updated_at: Timestamp
    name: str | None = Field(description="The name it was given.", examples=["Ferry assistant"])
    labels: dict[str, str] = Field(description="The labels it was given.", examples=[{"team": "support"}])
    model_name: str = Field(description="Base model.", examples=[CATALOG[0].id])
    started_at: Timestamp | None = Field(
        description="When it first ran; UTC, ISO 8601 with milliseconds.", examples=["2025-11-12T10:30:04.000Z"]
    )
    ended_at: Timestamp | None = Field(
        description="When it was completed, failed or cancelled.", examples=["2025-11-12T10:45:00.000Z"]
    )
    priority: PriorityName = Field(description="Its priority in the queue.", examples=["normal"])


class JobList(ResponseBody):
    """Jobs, the newest first."""

    jobs: list[JobSummary] = Field(
        description="All of them, or one page.",
        examples=[
            [
                {
                    "job_id": JOB_ID,
                    "dataset_id": DATASET_ID,
                    "status": "completed",
                    "progress": 100,
                    "message": "Training completed successfully",
                    "created_at": "2025-11-12T10:30:00.000Z",
                    "updated_at": "2025-11-12T10:45:00.000Z",
                    "name": None,
                    "labels": {},
                    "model_name": CATALOG[0].id,
                    "started_at": "2025-11-12T10:30:04.000Z",
                    "ended_at": "2025-11-12T10:45:00.000Z",
                    "priority": "normal",
                }
            ]
        ],
    )
    count: int = Field(description="Number of jobs that fit, on all pages.", examples=[42])
    next_cursor: str | None = Field(
        description="`cursor` of the next page; null after the last one.", examples=["NDI="]
    )


class JobDataset(ResponseBody):
    """A dataset that a job trains on."""

    dataset_id: str = Field(description="The dataset's UUID.", examples=[DATASET_ID])
    version: int = Field(
        description="Its version; an id stands for one version, whatever is appended later.", examples=[1]
    )
    weight: float = Field(description="How often an epoch has each of its rows.", examples=[1.0])
    rows_per_epoch: int | None = Field(
        description="Rows that an epoch has of it, where datasets are mixed; null until the job has read them.",
        examples=[None, 1187],
    )
    rows_seen: int | None = Field(
        description="Rows of it that were trained on in all epochs, once the run of a mixture is over.",
        examples=[None, 3561],
    )


class JobMeta(ResponseBody):
    """Facts about a run; further ones (phase, tokens_per_s, time_left_s, eval_loss, ...) come as it goes on."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_name: str = Field(description="Base model.", examples=[CATALOG[0].id])
    model_revision: str | None = Field(
        description="Commit of the base model, resolved when the job was submitted; null where none is known.",
        examples=[REVISION],
    )
    current_epoch: int = Field(description="1-based; 0 before the first step.", examples=[2])
    total_epochs: int = Field(description="Passes over the dataset.", examples=[3])
    current_loss: float | None = Field(description="Loss of the last step; null before it.", examples=[0.523])
    train_loss: float | None = Field(
        description="Mean loss of the epoch so far; once the job is completed, of the published adapter.",
        examples=[0.523],
    )
    learning_rate: float = Field(
        description="The peak learning rate that was asked for; `current_learning_rate` is that of the last step.",
        examples=[0.0002],
    )
    num_epochs: int = Field(description="`total_epochs` as it was asked for.", examples=[3])
    batch_size: int = Field(description="Rows in one forward pass.", examples=[4])
    model_path: str = Field(
        description="Where the adapter is, or will be once the job is completed.",
        examples=["/app/data/storage/adapters/" + JOB_ID],
    )
    attempt: int = Field(description="Runs that were started; 0 before the first.", examples=[1])
    ray_submission_id: str | None = Field(
        description="The last run's Ray job, as the Ray dashboard shows it.", examples=[f"sienn-{JOB_ID}-1"]
    )
    failure_reason: str | None = Field(
        description="Why it failed, for programs; `message` says it for people.", examples=["out_of_memory"]
    )
    datasets: list[JobDataset] = Field(description="The datasets that it trains on.", examples=[[_EXAMPLE_DATASET]])
    validation_dataset_id: str | None = Field(
        description="The dataset that is evaluated on, if it was asked for.", examples=[None]
    )
    from_job: str | None = Field(description="The job whose adapter it starts from.", examples=[None])
    lineage: list[str] = Field(
        description="The jobs that it goes back to, the oldest first and `from_job` last; some may be deleted.",
        examples=[[]],
    )
    hyperparameters: dict[str, Any] = Field(
        description="All that was chosen, or left as it is by default, when the job was started.",
        examples=[{"learning_rate": 0.0002, "num_epochs": 3, "lora_r": 16, "target_modules": "all-linear"}],
    )


class TrainingStatus(JobSummary):
    """A job with all that is known of its run."""

    log_tail: str | None = Field(
        None,
        description="The last lines of the log of a run that failed or was lost, without terminal codes; all of it is "
        "at `GET /api/jobs/{job_id}/logs`.",
        examples=[None],
    )
    meta: JobMeta = Field(
        description="Facts about the run.",
        examples=[
            {
                "model_name": CATALOG[0].id,
                "model_revision": REVISION,
                "current_epoch": 2,
                "total_epochs": 3,
                "current_loss": 0.523,
                "train_loss": 0.523,
                "learning_rate": 0.0002,
                "num_epochs": 3,
                "batch_size": 4,
                "model_path": "/app/data/storage/adapters/" + JOB_ID,
                "attempt": 1,
                "ray_submission_id": f"sienn-{JOB_ID}-1",
                "failure_reason": None,
                "datasets": [_EXAMPLE_DATASET],
                "validation_dataset_id": None,
                "from_job": None,
                "lineage": [],
                "hyperparameters": {"learning_rate": 0.0002, "num_epochs": 3, "lora_r": 16},
            }
        ],
    )


def name_of(priority: JobPriority) -> PriorityName:
    """Return a priority as requests and responses call it."""
    return cast(PriorityName, priority.name.lower())


class DeletedJob(ResponseBody):
    """A job that was deleted, with its adapter and checkpoints."""

    job_id: str = Field(description="The id it had.", examples=[JOB_ID])
    deleted: Literal[True] = Field(True, description="Nothing of it is left.", examples=[True])
