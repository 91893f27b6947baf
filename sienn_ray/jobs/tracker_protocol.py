"""The calls that the job tracker answers, in words: the actor carries them out, clients hand them on.

A new call takes a method here, one of the same name in `tracker.JobTracker`, and what it does in a store; clients and
tests get it from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from sienn_ray.errors import FailureReason
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.ids import check_id
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
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Progress, RunCommand
from sienn_ray.training.summary import RunSummary


class Tracker(Protocol):
    """The job tracker, as its clients see it. Every call may be repeated without harm.

    Every method may raise `CapacityError` while the tracker or its database is away. What names a dataset, a job or an
    export by its id raises `NotFoundError` if there is none, unless its description says otherwise.
    """

    # Datasets

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset; the answer says in `duplicate_of` if its bytes were there before."""
        ...

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset."""
        ...

    async def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        ...

    async def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        """Forget a dataset; raises `ConflictError` while a job refers to it."""
        ...

    # Jobs, as users see them

    async def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue, or one that already runs as a Ray job started by hand.

        Returns:
            The job, or the one that came with the same idempotency key before.

        Raises:
            NotFoundError: There is no such dataset.
            ConflictError: The key came with another request.
            TooManyRequestsError: The queue is full.
        """
        ...

    async def job_of_key(self, idempotency_key: str) -> JobRecord | None:
        """The job that came with this idempotency key, if any."""
        ...

    async def job(self, job_id: str) -> JobRecord:
        """One job; one that waits says so with its place in the queue."""
        ...

    async def jobs(self, query: JobQuery) -> JobPage:
        """Jobs, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        ...

    async def cancel_job(self, job_id: str) -> JobRecord:
        """End a waiting, running or paused job; raises `ConflictError` for one that has ended."""
        ...

    async def retry_job(self, job_id: str) -> JobRecord:
        """Put a failed or cancelled job back into the queue; raises `ConflictError` for others."""
        ...

    async def pause_job(self, job_id: str) -> JobRecord:
        """Pause a waiting or running job; raises `ConflictError` for one that is neither."""
        ...

    async def resume_job(self, job_id: str) -> JobRecord:
        """Have a job go on that is paused, or is being paused; raises `ConflictError` for others."""
        ...

    async def delete_job(self, job_id: str) -> JobRecord:
        """Forget an ended job; raises `ConflictError` for one that hasn't ended."""
        ...

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """A job's events with a `seq` above `after`, the oldest first."""
        ...

    async def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        """A job's curves in order of steps, thinned out evenly to `max_points`."""
        ...

    # Exports

    async def request_export(self, record: ExportRecord) -> ExportRecord:
        """Ask for an export, which may be there already; raises `NotFoundError` and `ConflictError` about its job."""
        ...

    async def redo_export(self, export_id: str, words: str) -> ExportRecord:
        """Have a completed export made again, since its file is gone."""
        ...

    async def export(self, export_id: str) -> ExportRecord:
        """One export."""
        ...

    async def exports(self, job_id: str) -> list[ExportRecord]:
        """A job's exports, the newest first."""
        ...

    async def cancel_export(self, export_id: str) -> ExportRecord:
        """End an export that waits or runs; raises `ConflictError` for one that has ended."""
        ...

    async def delete_export(self, export_id: str) -> ExportRecord:
        """Forget an export, and stop it if it runs."""
        ...

    async def signing_key(self) -> bytes:
        """The key that links to downloads are signed with."""
        ...

    # Numbers

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
        """Return the health of the tracker and its database. Callers who can't wait long set a timeout of their own."""
        ...

    # Runs of jobs and exports, as their programs report them

    async def settings(self) -> Settings:
        """Settings that a training program must know, so that one started by hand uses the same storage."""
        ...

    async def report(self, job_id: str, attempt: int, progress: Progress) -> RunCommand:
        """Take a running job's progress; reports of an earlier attempt, after the end, or of no job are dropped.

        Returns:
            The command for the run.
        """
        ...

    async def pause(self, job_id: str, attempt: int) -> None:
        """Note that a run has ended at a checkpoint, since its job was to be paused; of no job, it is dropped."""
        ...

    async def complete(self, job_id: str, attempt: int, summary: RunSummary) -> None:
        """Note that a job's adapter is published; of no job, it is dropped."""
        ...

    async def fail(self, job_id: str, attempt: int, reason: FailureReason, message: str) -> None:
        """Note that a job ended without an adapter, and why; of no job, it is dropped."""
        ...

    async def report_export(self, export_id: str, attempt: int, progress: int, message: str) -> bool:
        """Take the progress of a running export; returns whether it is to go on."""
        ...


METHODS: dict[str, inspect.Signature] = {
    name: inspect.signature(member) for name, member in vars(Tracker).items() if inspect.iscoroutinefunction(member)
}
# Ids among the arguments, by their names.
_KINDS_OF_ID = {"dataset_id": "Dataset", "job_id": "Job", "export_id": "Export"}


def check_arguments(method: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Put a call's arguments in order, and check those that are ids.

    Returns:
        All of them by position.

    Raises:
        NotFoundError: One can't be an id; nobody needs to be asked.
        TypeError: The method takes other arguments.
    """
    bound = METHODS[method].bind(None, *args, **kwargs)
    for name, kind in _KINDS_OF_ID.items():
        if name in bound.arguments:
            check_id(kind, bound.arguments[name])
    return bound.args[1:]


class TrackerCalls:
    """Base of clients: has the methods of `Tracker`, each of which checks its arguments and calls `send`."""

    async def send(self, method: str, *args: Any) -> Any:
        """Have the tracker carry out a call.

        Args:
            method: A name among `METHODS`.
            args: Its arguments, all by position.
        """
        raise NotImplementedError

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name not in METHODS:
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}', and neither has Tracker")

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self.send(name, *check_arguments(name, *args, **kwargs))

        return call
