"""The caller's side of the JobTracker: find or start it, and ask it."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

import sienn_ray
from sienn_ray.errors import CapacityError, FailureReason, SiennError
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Progress

logger = logging.getLogger(__name__)

NAMESPACE = "sienn"
TRACKER_NAME = "job_tracker"
_CALL_TIMEOUT_S = 30.0
# A finished run is worth waiting for: the end of a job that nobody noted would be trained again.
_WRITE_TIMEOUT_S = 600.0
_WRITE_RETRY_S = 2.0
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

    Every method raises what the tracker raised, and `CapacityError` while the tracker is away.

    Args:
        settings: For a new tracker, should the old one be gone for good.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            # Got by name each time: a redeploy may have replaced it, and one whose database was out of reach when it
            # started is dead for good.
            return await getattr(get_or_create_tracker(self._settings), method).remote(*args)
        except RayTaskError as error:
            raise _cause(error) from None
        except RayActorError as error:
            raise CapacityError("the job tracker is restarting; try again in a moment") from error

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset."""
        return DatasetRecord.model_validate(await self._ask("add_dataset", record))

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset."""
        return DatasetRecord.model_validate(await self._ask("dataset", dataset_id))

    async def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        return list(await self._ask("datasets"))

    async def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue."""
        return JobRecord.model_validate(await self._ask("add_job", record))

    async def job(self, job_id: str) -> JobRecord:
        """One job."""
        return JobRecord.model_validate(await self._ask("job", job_id))

    async def jobs(self) -> list[JobRecord]:
        """All jobs, the newest first."""
        return list(await self._ask("jobs"))


class TrainingSession:
    """A training program's line to the tracker, for one attempt at one job. It pickles, so workers have it too.

    The tracker is looked up by name each time: a redeploy may replace it while a job runs.
    """

    def __init__(self, job: JobRecord) -> None:
        self._job_id = job.id
        self._attempt = job.attempt

    def report(self, progress: Progress) -> None:
        """Pass progress on without waiting for an answer."""
        try:
            find_tracker().report.remote(self._job_id, self._attempt, progress)
        except Exception:  # a run must not end because nobody listens
            logger.warning("progress couldn't be sent", exc_info=True)

    def complete(self, facts: dict[str, Any]) -> None:
        """Note that the adapter is published; waits until that is written, through restarts of the tracker."""
        self._write("complete", facts)

    def fail(self, reason: FailureReason, message: str) -> None:
        """Note why there is no adapter; waits until that is written, through restarts of the tracker."""
        self._write("fail", reason, message)

    def _write(self, method: str, *args: Any) -> None:
        deadline = time.monotonic() + _WRITE_TIMEOUT_S
        while True:
            try:
                ask(method, self._job_id, self._attempt, *args)
            except (RayActorError, GetTimeoutError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("the tracker is away (%s); trying again", type(error).__name__)
                time.sleep(_WRITE_RETRY_S)
            else:
                return


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
