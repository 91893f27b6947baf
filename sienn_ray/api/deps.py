"""The backends of the API: protocols at the costly edges, and the dependency that gives them to routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from sienn_ray.api.cluster import Cluster
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.schema import (
    DatasetRecord,
    JobEvent,
    JobPage,
    JobQuery,
    JobRecord,
    MetricPoint,
    Overview,
    TrackerHealth,
)
from sienn_ray.metrics import MetricBatch, Recorder, Sample
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage


class Tracker(Protocol):
    """The job tracker, as routes see it. Every method may raise `CapacityError` while the tracker is away."""

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset; the answer says in `duplicate_of` if its bytes were there before."""
        ...

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset; raises `NotFoundError`."""
        ...

    async def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        ...

    async def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        """Forget a dataset; raises `NotFoundError`, and `ConflictError` while a job refers to it."""
        ...

    async def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue, or give the one that came with the same idempotency key before.

        Raises `NotFoundError` for an unknown dataset, `ConflictError` for a key that came with another request, and
        `TooManyRequestsError` when the queue is full.
        """
        ...

    async def job_of_key(self, idempotency_key: str) -> JobRecord | None:
        """The job that came with this idempotency key, if any."""
        ...

    async def job(self, job_id: str) -> JobRecord:
        """One job; raises `NotFoundError`."""
        ...

    async def jobs(self, query: JobQuery) -> JobPage:
        """Jobs, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        ...

    async def cancel_job(self, job_id: str) -> JobRecord:
        """End a waiting, running or paused job; raises `NotFoundError`, and `ConflictError` for one that has ended."""
        ...

    async def retry_job(self, job_id: str) -> JobRecord:
        """Put a failed or cancelled job back into the queue; raises `NotFoundError` and `ConflictError`."""
        ...

    async def pause_job(self, job_id: str) -> JobRecord:
        """Pause a waiting or running job; raises `NotFoundError`, and `ConflictError` for one that is neither."""
        ...

    async def resume_job(self, job_id: str) -> JobRecord:
        """Have a paused job go on, or one that is being paused; raises `NotFoundError` and `ConflictError`."""
        ...

    async def delete_job(self, job_id: str) -> JobRecord:
        """Forget an ended job; raises `NotFoundError`, and `ConflictError` for one that hasn't ended."""
        ...

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """A job's events with a `seq` above `after`, the oldest first; raises `NotFoundError`."""
        ...

    async def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        """A job's curves in order of steps, thinned out evenly to `max_points`; raises `NotFoundError`."""
        ...

    async def request_export(self, record: ExportRecord) -> ExportRecord:
        """Ask for an export, which may be there already; raises `NotFoundError` and `ConflictError` about its job."""
        ...

    async def redo_export(self, export_id: str, words: str) -> ExportRecord:
        """Have a completed export made again, since its file is gone; raises `NotFoundError`."""
        ...

    async def export(self, export_id: str) -> ExportRecord:
        """One export; raises `NotFoundError`."""
        ...

    async def exports(self, job_id: str) -> list[ExportRecord]:
        """A job's exports, the newest first; raises `NotFoundError`."""
        ...

    async def cancel_export(self, export_id: str) -> ExportRecord:
        """End an export that waits or runs; raises `NotFoundError`, and `ConflictError` for one that has ended."""
        ...

    async def delete_export(self, export_id: str) -> ExportRecord:
        """Forget an export, and stop it if it runs; raises `NotFoundError`."""
        ...

    async def signing_key(self) -> bytes:
        """What links to downloads are signed with."""
        ...

    async def overview(self) -> Overview:
        """Numbers over all jobs and datasets."""
        ...

    async def add_metrics(self, batch: MetricBatch) -> None:
        """Add up what a process has counted."""
        ...

    async def metric_samples(self) -> list[Sample]:
        """All metrics, those about jobs included."""
        ...

    async def health(self) -> TrackerHealth:
        """How the tracker and its database are."""
        ...


class Engines(Protocol):
    """The engines of all base models."""

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """Answer one request; a caller that is cancelled ends it.

        Args:
            base_model: Hub id.
            request: What to generate.
            start_wait_s: How long to wait where the engine has to be started first; None is as long as settings allow.

        Raises:
            SiennError: Why there is no answer.
        """
        ...

    def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """Answer one request piece by piece, as `generate`; closing the generator ends it.

        What fails before the first piece is raised, what fails later is the last one's error.

        Raises:
            SiennError: Why there is no answer.
        """
        ...


class JobLogs(Protocol):
    """The logs of training programs."""

    def stream(self, submission_id: str, *, tail: int, follow: bool) -> AsyncGenerator[bytes]:
        """The last lines of a Ray job's log; the first item comes, maybe empty, once it is known that there is one.

        Args:
            submission_id: The Ray job's submission id.
            tail: Lines at the most of what is there.
            follow: Go on with what comes until the Ray job has ended.

        Raises:
            NotFoundError: The cluster doesn't have this log.
            CapacityError: Ray didn't answer in time.
        """
        ...


class Statistics(Protocol):
    """Computes the statistics of datasets, on the cluster."""

    async def compute(self, request: StatisticsRequest) -> DatasetStatistics:
        """Compute them and keep them in storage under the request's key, however long it takes.

        Raises:
            SiennError: Why it couldn't be done.
        """
        ...


@dataclass(frozen=True)
class Backends:
    """Everything behind the API."""

    settings: Settings
    tracker: Tracker
    engines: Engines
    storage: Storage
    job_logs: JobLogs
    cluster: Cluster
    statistics: Statistics
    recorder: Recorder = field(default_factory=Recorder)


def _backends(connection: HTTPConnection) -> Backends:
    return cast(Backends, connection.app.state.backends)


BackendsDep = Annotated[Backends, Depends(_backends)]
