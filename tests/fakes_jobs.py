"""Jobs without Ray: records to store, and a job API that does as a test says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sienn_ray.jobs.ray_jobs import RayJobReport, RayJobState, submission_id_of
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.training.config import TrainingConfig

MOMENT = datetime(2025, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)


def dataset_record(dataset_id: str = "dataset-1", **fields: Any) -> DatasetRecord:
    """A dataset of two rows."""
    defaults: dict[str, Any] = {
        "filename": "rows.jsonl",
        "size_bytes": 5_000_000_000,
        "sha256": "0" * 64,
        "format": "instruction-response",
        "num_rows": 2,
        "columns": ["instruction", "response"],
        "preview": [{"instruction": "Wie heißt die Fähre?", "response": "Kestrel ⛴"}],
        "created_at": MOMENT,
    }
    return DatasetRecord(id=dataset_id, **{**defaults, **fields})


def job_record(job_id: str = "job-1", **fields: Any) -> JobRecord:
    """A pending job on `dataset_record()`."""
    defaults: dict[str, Any] = {
        "dataset_id": "dataset-1",
        "config": TrainingConfig(base_model="owner/model"),
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }
    return JobRecord(id=job_id, **{**defaults, **fields})


class FakeRayJobs:
    """`RayJobs` in memory.

    Attributes:
        submitted: Submission ids in the order in which Ray took them.
        metadata: What was submitted with each.
        is_reachable: Whether the job API answers at all.
        answer_is_lost: The API takes a submission, but its answer never arrives.
        submit_errors: Raised by `submit` for these job ids, before anything starts.
        on_look: Called with the submission id at each look, before it is answered.
    """

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.metadata: dict[str, dict[str, str]] = {}
        self.is_reachable = True
        self.answer_is_lost = False
        self.submit_errors: dict[str, Exception] = {}
        self.on_look: Callable[[str], None] = lambda _: None
        self._reports: dict[str, RayJobReport] = {}

    def submit(self, job_id: str, attempt: int, metadata: dict[str, str]) -> None:
        """See `RayJobs.submit`."""
        submission_id = submission_id_of(job_id, attempt)
        self._check_reachable()
        if job_id in self.submit_errors:
            raise self.submit_errors[job_id]
        if submission_id not in self._reports:
            self._reports[submission_id] = RayJobReport(RayJobState.ACTIVE)
            self.submitted.append(submission_id)
            self.metadata[submission_id] = metadata
        if self.answer_is_lost:
            raise ConnectionError("read timed out")

    def look(self, submission_id: str) -> RayJobReport:
        """See `RayJobs.look`."""
        self._check_reachable()
        self.on_look(submission_id)
        return self._reports.get(submission_id, RayJobReport(RayJobState.MISSING))

    def end(self, submission_id: str, state: RayJobState, message: str = "") -> None:
        """Let a Ray job end like this."""
        self._reports[submission_id] = RayJobReport(state, message)

    def forget_all(self) -> None:
        """Lose every Ray job, as a new cluster does."""
        self._reports.clear()

    def _check_reachable(self) -> None:
        if not self.is_reachable:
            raise ConnectionError("connection refused")
