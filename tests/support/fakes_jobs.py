"""Jobs without Ray: records to store, and a job API that does as a test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import DatasetRecord, JobQuery, JobRecord, JobStatus
from sienn_ray.jobs.store.records import read_job
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobReport, RayJobState, submission_id_of
from sienn_ray.jobs.supervision.ray_logs import ALL_LINES, LogPlace
from sienn_ray.metrics import Sample
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.run_state import EvalRecord
from sienn_ray.training.summary import RunSummary

MOMENT = datetime(2025, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)


class Clock:
    """A time that stands still until a test moves it on; it begins an hour after `MOMENT`."""

    def __init__(self) -> None:
        self.now = MOMENT + timedelta(hours=1)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class Seconds:
    """A clock that only rises, and only when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


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


def job_record(job_id: str = "job-1", *, facts: Mapping[str, Any] = MappingProxyType({}), **fields: Any) -> JobRecord:
    """A pending job on `dataset_record()`; `facts` are as a row of the database has them."""
    defaults: dict[str, Any] = {
        "dataset_id": "dataset-1",
        "config": TrainingConfig(base_model="owner/model"),
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }
    return JobRecord(id=job_id, **{**defaults, **job_facts.of_flat(facts), **fields})


def run_summary(**fields: Any) -> RunSummary:
    """A run of one epoch."""
    defaults: dict[str, Any] = {
        "train_loss": 0.523,
        "eval_loss": 0.6,
        "current_loss": 0.523,
        "loss_history": (EvalRecord(epoch=1, step=6, train_loss=0.523, eval_loss=0.6),),
        "run_method": "sft",
        "run_precision": "float32",
        "run_packed": True,
        "num_train_rows": 90,
        "num_eval_rows": 10,
        "num_dropped_rows": 0,
        "num_tokens": 3000,
        "tokens_per_s": 1200.0,
        "train_seconds": 2.5,
        "total_seconds": 4.0,
        "num_workers": 1,
        "peak_memory_bytes": 500_000_000,
        "rows_per_step": 4,
        "use_gpu": False,
        "stop_reason": None,
        "best_epoch": 1,
        "best_step": 6,
        "adapter_size_bytes": 8_676_008,
    }
    return RunSummary(**{**defaults, **fields})


def stored_job(store: Store, job_id: str = "job-1") -> JobRecord:
    """A job as it is written, without its place in the queue."""
    with store.database.reading() as connection:
        return read_job(connection, job_id)


def all_jobs(store: Store, status: JobStatus | None = None) -> list[JobRecord]:
    """All jobs, or those of one status, the newest first."""
    return store.jobs.page(JobQuery(status=status)).jobs


class PatientSupervisor(Supervisor):
    """Waits before each step until no back-off holds it up."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.seconds = Seconds()
        super().__init__(*args, **options, clock_s=self.seconds)

    def step(self) -> None:
        self.seconds.advance(60)
        super().step()


class FakeRayJobs:
    """`RayJobs` in memory.

    Attributes:
        submitted: Submission ids in the order in which Ray took them.
        metadata: What was submitted with each.
        is_reachable: Whether the job API answers at all.
        answer_is_lost: The API takes a submission, but its answer never arrives.
        stopped: Submission ids that were asked to stop, each time.
        stops_at_once: Whether a Ray job that is asked to stop has ended at the next look.
        stop_errors: Raised by `stop` for these submission ids.
        submit_errors: Raised by `submit` for these job ids, before anything starts.
        look_errors: Raised by `look` for these submission ids.
        looked: Submission ids that were looked at, each time.
        reports: What Ray says of each submission id.
        on_look: Called with the submission id at each look, before it is answered.
        on_submit: Called with the submission id once Ray has taken it, before that is answered.
    """

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.metadata: dict[str, dict[str, str]] = {}
        self.is_reachable = True
        self.answer_is_lost = False
        self.stopped: list[str] = []
        self.stops_at_once = True
        self.stop_errors: dict[str, Exception] = {}
        self.submit_errors: dict[str, Exception] = {}
        self.look_errors: dict[str, Exception] = {}
        self.looked: list[str] = []
        self.on_look: Callable[[str], None] = lambda _: None
        self.on_submit: Callable[[str], None] = lambda _: None
        self.reports: dict[str, RayJobReport] = {}

    def submit(self, job_id: str, attempt: int, metadata: dict[str, str]) -> None:
        """See `RayJobs.submit`."""
        submission_id = submission_id_of(job_id, attempt)
        self._check_reachable()
        if job_id in self.submit_errors:
            raise self.submit_errors[job_id]
        if submission_id not in self.reports:
            self.reports[submission_id] = RayJobReport(RayJobState.ACTIVE)
            self.submitted.append(submission_id)
            self.metadata[submission_id] = metadata
        self.on_submit(submission_id)
        if self.answer_is_lost:
            raise ConnectionError("read timed out")

    def look(self, submission_id: str) -> RayJobReport:
        """See `RayJobs.look`."""
        self.looked.append(submission_id)
        self._check_reachable()
        if submission_id in self.look_errors:
            raise self.look_errors[submission_id]
        self.on_look(submission_id)
        return self.reports.get(submission_id, RayJobReport(RayJobState.MISSING))

    def stop(self, submission_id: str) -> None:
        """See `RayJobs.stop`."""
        self._check_reachable()
        self.stopped.append(submission_id)
        if submission_id in self.stop_errors:
            raise self.stop_errors[submission_id]
        report = self.reports.get(submission_id)
        if self.stops_at_once and report is not None and report.state is RayJobState.ACTIVE:
            self.end(submission_id, RayJobState.STOPPED)

    def end(self, submission_id: str, state: RayJobState, message: str = "") -> None:
        """Let a Ray job end like this."""
        self.reports[submission_id] = RayJobReport(state, message)

    def forget_all(self) -> None:
        """Lose every Ray job, as a new cluster does."""
        self.reports.clear()

    def _check_reachable(self) -> None:
        if not self.is_reachable:
            raise ConnectionError("connection refused")


class FakeRayLogs:
    """`RayLogs` in memory, of jobs that have ended; one that isn't there was lost with its cluster.

    Attributes:
        chunks: Logs by submission id.
        running: Submission ids of jobs that haven't ended yet.
        error: Raised by all looks.
        on_read: Called with the submission id before each chunk.
    """

    def __init__(self) -> None:
        self.chunks: dict[str, list[bytes]] = {}
        self.running: set[str] = set()
        self.error: Exception | None = None
        self.on_read: Callable[[str], None] = lambda _: None

    def look(self, submission_id: str) -> LogPlace:
        """See `RayLogs.look`."""
        if self.error is not None:
            raise self.error
        if submission_id not in self.chunks:
            raise LookupError(f"no job {submission_id}")
        return LogPlace("node-1", submission_id not in self.running)

    def read(self, node_id: str, submission_id: str, tail: int) -> Iterator[bytes]:
        """See `RayLogs.read`."""
        assert (node_id, tail) == ("node-1", ALL_LINES)
        for chunk in self.chunks[submission_id]:
            self.on_read(submission_id)
            yield chunk

    async def follow(self, submission_id: str) -> AsyncGenerator[bytes]:
        """See `RayLogs.follow`."""
        for chunk in self.chunks[submission_id]:
            yield chunk


def no_mirror(samples: list[Sample]) -> None:
    """Keep a tracker's metrics from Ray's endpoint: a process can register each of Ray's metrics only once."""
