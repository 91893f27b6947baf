"""The caller's side of the JobTracker: find or start it, and ask it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

import sienn_ray
from sienn_ray.errors import CapacityError, SiennError
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

logger = logging.getLogger(__name__)

NAMESPACE = "sienn"
TRACKER_NAME = "job_tracker"
_CALL_TIMEOUT_S = 30.0
_CONNECT_THREADS = 8
# Ray gives every head node one of these.
_HEAD_NODE_RESOURCE = "node:__internal_head__"


def start_tracker(settings: Settings) -> Any:
    """Return the cluster's tracker, working; one with other code or other settings than these is replaced.

    Replacing is safe, since everything it knows is in the database.
    """
    tracker = get_or_create_tracker(settings)
    if not ray.get(tracker.is_like.remote(sienn_ray.__version__, settings)):
        logger.info("replacing the job tracker, since code or settings have changed")
        ray.kill(tracker, no_restart=True)
        tracker = get_or_create_tracker(settings)
        ray.get(tracker.is_like.remote(sienn_ray.__version__, settings))
    return tracker


def find_tracker() -> Any:
    """Handle of the cluster's tracker.

    Raises:
        ValueError: There is none.
    """
    return ray.get_actor(TRACKER_NAME, namespace=NAMESPACE)


def get_or_create_tracker(settings: Settings) -> Any:
    """Handle of the cluster's tracker as it is, or of a new one with these settings."""
    with suppress(ValueError):  # there is none; the class, and its database, is imported only to start one
        return find_tracker()
    from sienn_ray.jobs.tracker import JobTracker

    actor_class = ray.remote(JobTracker)
    return actor_class.options(
        name=TRACKER_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=16,
        num_cpus=0,
        # A SQLite file is on one node's disk, so the tracker always runs on the same node.
        resources={_HEAD_NODE_RESOURCE: 0.001},
    ).remote(settings)


class TrackerClient:
    """Asks the tracker from asynchronous code (the ingress).

    Every method raises what the tracker raised, and `CapacityError` while the tracker is away or too slow.

    Args:
        settings: For a new tracker, should the old one be gone for good.
        connect: Gives the tracker's handle.
        timeout_s: Longest wait for an answer.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[Settings], Any] = get_or_create_tracker,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._timeout_s = timeout_s
        # Threads of their own: while Ray's GCS is away they hang, and others must not wait for them.
        self._threads = ThreadPoolExecutor(_CONNECT_THREADS, thread_name_prefix="tracker-lookup")

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                # Got by name each time: a redeploy may have replaced it, and one whose database was out of reach when
                # it started is dead for good.
                tracker = await asyncio.get_running_loop().run_in_executor(self._threads, self._connect, self._settings)
                return await getattr(tracker, method).remote(*args)
        except TimeoutError:
            raise CapacityError(
                f"the job tracker hasn't answered within {self._timeout_s:g} s; try again in a moment"
            ) from None
        except RayTaskError as error:
            raise _cause(error) from None
        except RayError as error:
            raise CapacityError("the job tracker is restarting; try again in a moment") from error

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset; the answer says in `duplicate_of` if its bytes were there before."""
        return cast(DatasetRecord, await self._ask("add_dataset", record))

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset; raises `NotFoundError`."""
        check_id("Dataset", dataset_id)
        return cast(DatasetRecord, await self._ask("dataset", dataset_id))

    async def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        return cast(list[DatasetRecord], await self._ask("datasets"))

    async def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        """Forget a dataset; raises `NotFoundError`, and `ConflictError` while a job refers to it."""
        check_id("Dataset", dataset_id)
        return cast(DatasetRecord, await self._ask("delete_dataset", dataset_id))

    async def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue, or give the one that came with the same idempotency key before.

        Raises:
            NotFoundError: There is no such dataset.
            ConflictError: The key came with another request.
            TooManyRequestsError: The queue is full.
        """
        return cast(JobRecord, await self._ask("add_job", record))

    async def job_of_key(self, idempotency_key: str) -> JobRecord | None:
        """The job that came with this idempotency key, if any."""
        return cast(JobRecord | None, await self._ask("job_of_key", idempotency_key))

    async def job(self, job_id: str) -> JobRecord:
        """One job; raises `NotFoundError`."""
        check_id("Job", job_id)
        return cast(JobRecord, await self._ask("job", job_id))

    async def jobs(self, query: JobQuery) -> JobPage:
        """Jobs, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        return cast(JobPage, await self._ask("jobs", query))

    async def cancel_job(self, job_id: str) -> JobRecord:
        """End a waiting, running or paused job; raises `NotFoundError`, and `ConflictError` for one that has ended."""
        check_id("Job", job_id)
        return cast(JobRecord, await self._ask("cancel_job", job_id))

    async def retry_job(self, job_id: str) -> JobRecord:
        """Put a failed or cancelled job back into the queue; raises `NotFoundError` and `ConflictError`."""
        check_id("Job", job_id)
        return cast(JobRecord, await self._ask("retry_job", job_id))

    async def pause_job(self, job_id: str) -> JobRecord:
        """Pause a waiting or running job; raises `NotFoundError`, and `ConflictError` for one that is neither."""
        check_id("Job", job_id)
        return cast(JobRecord, await self._ask("pause_job", job_id))

    async def resume_job(self, job_id: str) -> JobRecord:
        """Have a paused job go on, or one that is being paused; raises `NotFoundError` and `ConflictError`."""
        check_id("Job", job_id)
        return cast(JobRecord, await self._ask("resume_job", job_id))

    async def delete_job(self, job_id: str) -> JobRecord:
        """Forget an ended job; raises `NotFoundError`, and `ConflictError` for one that hasn't ended."""
        check_id("Job", job_id)
        return cast(JobRecord, await self._ask("delete_job", job_id))

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """A job's events with a `seq` above `after`, the oldest first; raises `NotFoundError`."""
        check_id("Job", job_id)
        return cast(list[JobEvent], await self._ask("events", job_id, after, limit))

    async def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        """A job's curves in order of steps, thinned out evenly to `max_points`; raises `NotFoundError`."""
        check_id("Job", job_id)
        return cast(list[MetricPoint], await self._ask("metric_points", job_id, max_points))

    async def request_export(self, record: ExportRecord) -> ExportRecord:
        """Ask for an export, which may be there already; raises `NotFoundError` and `ConflictError` about its job."""
        return cast(ExportRecord, await self._ask("request_export", record))

    async def redo_export(self, export_id: str, words: str) -> ExportRecord:
        """Have a completed export made again, since its file is gone; raises `NotFoundError`."""
        return cast(ExportRecord, await self._ask("redo_export", export_id, words))

    async def export(self, export_id: str) -> ExportRecord:
        """One export; raises `NotFoundError`."""
        check_id("Export", export_id)
        return cast(ExportRecord, await self._ask("export", export_id))

    async def exports(self, job_id: str) -> list[ExportRecord]:
        """A job's exports, the newest first; raises `NotFoundError`."""
        check_id("Job", job_id)
        return cast(list[ExportRecord], await self._ask("exports", job_id))

    async def cancel_export(self, export_id: str) -> ExportRecord:
        """End an export that waits or runs; raises `NotFoundError`, and `ConflictError` for one that has ended."""
        check_id("Export", export_id)
        return cast(ExportRecord, await self._ask("cancel_export", export_id))

    async def delete_export(self, export_id: str) -> ExportRecord:
        """Forget an export, and stop it if it runs; raises `NotFoundError`."""
        check_id("Export", export_id)
        return cast(ExportRecord, await self._ask("delete_export", export_id))

    async def signing_key(self) -> bytes:
        """What links to downloads are signed with."""
        return cast(bytes, await self._ask("signing_key"))

    async def overview(self) -> Overview:
        """Numbers over all jobs and datasets."""
        return cast(Overview, await self._ask("overview"))

    async def add_metrics(self, batch: MetricBatch) -> None:
        """Add up what a process has counted."""
        await self._ask("add_metrics", batch)

    async def metric_samples(self) -> list[Sample]:
        """All metrics, those about jobs included."""
        return cast(list[Sample], await self._ask("metric_samples"))

    async def health(self) -> TrackerHealth:
        """How the tracker and its database are. Callers who can't wait long set a timeout of their own."""
        return cast(TrackerHealth, await self._ask("health"))


def ask(method: str, *args: Any) -> Any:
    """Ask the tracker from synchronous code; raises what the tracker raised."""
    try:
        return ray.get(getattr(find_tracker(), method).remote(*args), timeout=_CALL_TIMEOUT_S)
    except RayTaskError as error:
        raise _cause(error) from None


def _cause(error: RayTaskError) -> BaseException:
    """The tracker's own error instead of Ray's wrapping of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, SiennError) else error
