"""What the tracker keeps: datasets, jobs, and the table of allowed status changes."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from sienn_ray.datasets.ingest import IngestReport
from sienn_ray.errors import FailureReason, TransitionError
from sienn_ray.training.config import TrainingConfig


class JobStatus(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


# RUNNING to PENDING is a run that was lost and waits for its next attempt.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset({JobStatus.PENDING, JobStatus.COMPLETED, JobStatus.FAILED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
}


def check_transition(job_id: str, current: JobStatus, new: JobStatus) -> None:
    """Refuse a status change that the table doesn't list.

    Raises:
        TransitionError: It isn't listed.
    """
    if new not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing, it is final"
        raise TransitionError(
            f"job {job_id} is '{current}' and can't become '{new}'; from there it can become: {allowed}"
        )


def utc_now() -> datetime:
    """The current time, with its zone."""
    return datetime.now(UTC)


class DatasetRecord(BaseModel):
    """One uploaded dataset."""

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
    created_at: datetime

    @classmethod
    def of_report(
        cls, dataset_id: str, filename: str, size_bytes: int, sha256: str, report: IngestReport
    ) -> DatasetRecord:
        """The record of a file that has just been checked."""
        return cls(
            id=dataset_id,
            filename=filename,
            size_bytes=size_bytes,
            sha256=sha256,
            format=report.format,
            num_rows=report.num_rows,
            columns=list(report.columns),
            preview=report.preview,
            created_at=utc_now(),
        )


class JobRecord(BaseModel):
    """One fine-tune that a user asked for."""

    model_config = ConfigDict(frozen=True)

    id: str
    dataset_id: str
    config: TrainingConfig
    status: JobStatus = JobStatus.PENDING
    progress: int = 0
    message: str = "Fine-tuning job submitted successfully"
    failure_reason: FailureReason | None = None
    attempt: int = 0
    submission_id: str | None = None
    facts: dict[str, Any] = {}
    created_at: datetime
    updated_at: datetime

    def is_running(self, attempt: int) -> bool:
        """Whether this very attempt is the one that runs."""
        return self.status is JobStatus.RUNNING and self.attempt == attempt

    @property
    def adapter_key(self) -> str:
        """Storage key of the published adapter."""
        return f"adapters/{self.id}"
