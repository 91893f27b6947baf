"""The real tracker in this process, over SQLite; without Ray, and with a switch for failures."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from sienn_ray.jobs.change_requests import CALL_TIMEOUT_S, current_request
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.schema import DatasetRecord, Heartbeat, JobEvent, JobQuery, JobRecord, MetricPoint
from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.records import dataset_columns, insert_job, write_job
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.threads import Steps
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.jobs.tracker_protocol import READING, TrackerCalls
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import dataset_record
from tests.support.fakes_exports import FakeExportRuns
from tests.support.fakes_jobs import FakeRayJobs, FakeRayLogs, no_mirror


class InProcessTracker(TrackerCalls):
    """Asks a tracker of this process as an ingress asks the actor: with copies of all values.

    The tracker is made at the first call. It looks after jobs and exports only when a test says so.

    Args:
        settings: The tracker's.
        actor: Another tracker than one of its own.

    Attributes:
        calls: Names of the methods that were called, in order.
        num_failed: Calls that failed as `fail_with` said.
        before: Functions by method that are called, or awaited, with its arguments before the tracker is.
        answers: Answers by method in place of the tracker's.
        ray_jobs: Ray's job API.
        ray_logs: Logs of Ray's jobs.
        export_runs: Runs of exports, which publish a few bytes at once.
    """

    def __init__(self, settings: Settings, actor: JobTracker | None = None) -> None:
        self._settings = settings
        if actor is not None:
            self.actor = actor
        self.calls: list[str] = []
        self.num_failed = 0
        self.before: dict[str, Callable[..., Any]] = {}
        self.answers: dict[str, Any] = {}
        self.ray_jobs = FakeRayJobs()
        self.ray_logs = FakeRayLogs()
        self.export_runs = FakeExportRuns(Storage(settings.storage_url))
        self._error: Exception | None = None
        self._num_to_fail: float = 0
        self._supervisors: dict[str, Steps] = {}

    @cached_property
    def actor(self) -> JobTracker:
        """The tracker itself."""
        _copy_migrated(self._settings.database_url.get_secret_value())
        return JobTracker(
            self._settings,
            self.ray_jobs,
            mirror=no_mirror,
            export_runs=self.export_runs,
            ray_logs=self.ray_logs,
            supervise=self._supervise,
        )

    def _supervise(
        self,
        supervisor: Steps,
        poll_s: float,
        after_step: Callable[[], None] = lambda: None,
        what: str = "jobs",
        longest_step_s: float = 0.0,
    ) -> Unwatched:
        self._supervisors[what] = supervisor
        return Unwatched(what)

    async def send(self, method: str, *args: Any) -> Any:
        """See `TrackerCalls.send`."""
        self.calls.append(method)
        await asyncio.sleep(0)
        if self._error is not None and self.num_failed < self._num_to_fail:
            self.num_failed += 1
            raise self._error
        if method in self.before:
            done = self.before[method](*args)
            if inspect.isawaitable(done):
                await done
        if method in self.answers:
            return self.answers[method]
        return pickle.loads(pickle.dumps(self._call(method, pickle.loads(pickle.dumps(args)))))

    def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        if method in READING:
            return getattr(self.actor, method)(*args)
        return self.actor.carry_out(current_request(CALL_TIMEOUT_S).for_caller(method), method, args)

    def fail_with(self, error: Exception | None, num_calls: float = float("inf")) -> None:
        """Have calls fail from now on, or the next few, whatever they ask; None has them succeed again."""
        self._error, self._num_to_fail = error, self.num_failed + num_calls

    def step(self, what: str) -> None:
        """Have `jobs`, `exports`, `deletions` or `logs` be looked after once."""
        assert self.actor
        self._supervisors[what].step()

    def make_exports(self) -> None:
        """Have waiting exports be made, and their ends be noted."""
        for _ in range(2):
            self.step("exports")

    # Records, as if the tracker had come to them by itself

    def put(self, *records: DatasetRecord | JobRecord) -> None:
        """Have these records stand, in this order; datasets of jobs that aren't there are added."""
        with self._database.writing() as connection:
            for record in records:
                if isinstance(record, DatasetRecord):
                    _put(connection, tables.datasets, record.id, dataset_columns(record))
                else:
                    _put_job(connection, record)

    def put_export(self, record: ExportRecord) -> None:
        """Have an export stand."""
        moments = {name: getattr(record, name) for name in ("created_at", "updated_at", "ended_at", "expires_at")}
        with self._database.writing() as connection:
            _put(connection, tables.exports, record.id, {**record.model_dump(mode="json"), **moments})

    def put_events(self, job_id: str, *events: JobEvent) -> None:
        """Have these events of a job stand."""
        rows = [{**dict(event), "job_id": job_id} for event in events]
        with self._database.writing() as connection:
            connection.execute(sa.insert(tables.job_events), rows)

    def put_points(self, job_id: str, *points: MetricPoint) -> None:
        """Have these points of a job's curves stand."""
        rows = [{**dict(point), "job_id": job_id, "attempt": 1} for point in points]
        with self._database.writing() as connection:
            connection.execute(sa.insert(tables.job_metric_points), rows)

    @property
    def last_job(self) -> JobRecord:
        """The newest job."""
        return self.actor.jobs(JobQuery(limit=1)).jobs[0]

    @property
    def num_records(self) -> int:
        """Datasets and jobs."""
        with self._database.reading() as connection:
            counts = (sa.select(sa.func.count()).select_from(table) for table in (tables.datasets, tables.jobs))
            return sum(connection.scalar(count) or 0 for count in counts)

    @property
    def _database(self) -> Database:
        return self.actor._store.database


class Unwatched:
    """Takes no steps."""

    def __init__(self, what: str) -> None:
        self._what = what

    def heartbeat(self) -> Heartbeat:
        """See `Supervised.heartbeat`."""
        return Heartbeat(self._what, age_s=0.5, limit_s=60.0)

    def wake(self) -> None:
        """See `Supervised.wake`."""

    def close(self) -> None:
        """See `Supervised.close`."""


def _put(connection: sa.Connection, table: sa.Table, record_id: str, values: dict[str, Any]) -> None:
    if connection.execute(sa.update(table).where(table.c.id == record_id).values(**values)).rowcount == 0:
        connection.execute(sa.insert(table).values(**values))


def _put_job(connection: sa.Connection, record: JobRecord) -> None:
    for dataset_id in filter(None, (record.dataset_id, record.validation_dataset_id)):
        if not _is_there(connection, tables.datasets, dataset_id):
            _put(connection, tables.datasets, dataset_id, dataset_columns(dataset_record(id=dataset_id)))
    if _is_there(connection, tables.jobs, record.id):
        write_job(connection, record)
    else:
        insert_job(connection, record)


def _is_there(connection: sa.Connection, table: sa.Table, record_id: str) -> bool:
    return connection.scalar(sa.select(table.c.seq).where(table.c.id == record_id)) is not None


def _copy_migrated(database_url: str) -> None:
    """Put an empty database where there is none yet; all migrations take ten times as long as a copy."""
    path = Path(sa.make_url(database_url).database or "")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sienn.db"
        store = Store(f"sqlite:///{path}")
        store.database.prepare()
        store.close()
        return path.read_bytes()
