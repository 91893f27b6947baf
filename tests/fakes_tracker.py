"""The tracker in memory, with the rules of the real one."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sienn_ray.errors import ConflictError, InvalidInputError, NotFoundError, TooManyRequestsError
from sienn_ray.jobs.export_schema import ExportRecord, ExportStatus
from sienn_ray.jobs.schema import (
    PAUSE_REQUESTED_AT,
    DatasetRecord,
    JobEvent,
    JobPage,
    JobQuery,
    JobRecord,
    JobStatus,
    MetricPoint,
    Overview,
    TrackerHealth,
    utc_now,
)
from sienn_ray.metrics import MetricBatch, Sample


class FakeTracker:
    """Keeps records in order of arrival.

    Attributes:
        error: Raised, if one is set, whatever it is asked.
        error_once: The same for the next call alone.
        calls: Names of the methods that were called, in order.
        max_pending_jobs: Jobs that may wait.
        tracker_health: What `health` answers.
        on_export: Called with each export that is to be made.
        on_export_look: Called with an export that is looked at, before it is given.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.error_once: Exception | None = None
        self.calls: list[str] = []
        self.max_pending_jobs = 10_000
        self.tracker_health = TrackerHealth(
            database="SQLite",
            database_response_s=0.0021,
            database_error=None,
            started_at=datetime(2025, 11, 12, 10, 0, tzinfo=UTC),
            gcs="Ray GCS",
        )
        self._datasets: dict[str, DatasetRecord] = {}
        self._jobs: dict[str, JobRecord] = {}
        self._arrivals: dict[str, int] = {}
        self._events: dict[str, list[JobEvent]] = defaultdict(list)
        self._points: dict[str, list[MetricPoint]] = defaultdict(list)
        self._exports: dict[str, ExportRecord] = {}
        self.on_export: Callable[[ExportRecord], None] = lambda _: None
        self.on_export_look: Callable[[ExportRecord], None] = lambda _: None
        self._num_events = 0
        self._batches: set[tuple[str, int]] = set()
        self._sums: dict[tuple[str, Any], float] = defaultdict(float)
        self._gauges: dict[str, tuple[Sample, ...]] = {}

    def _check(self, call: str) -> None:
        self.calls.append(call)
        if self.error_once is not None:
            error, self.error_once = self.error_once, None
            raise error
        if self.error is not None:
            raise self.error

    # Datasets

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        self._check("add_dataset")
        if record.id not in self._datasets:
            same = [known.id for known in self._datasets.values() if known.sha256 == record.sha256]
            self._datasets[record.id] = record.model_copy(update={"duplicate_of": same[0] if same else None})
        return self._datasets[record.id]

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        self._check("dataset")
        return self._dataset(dataset_id)

    def _dataset(self, dataset_id: str) -> DatasetRecord:
        if dataset_id not in self._datasets:
            raise NotFoundError(f"Dataset {dataset_id} not found")
        return self._datasets[dataset_id]

    async def datasets(self) -> list[DatasetRecord]:
        self._check("datasets")
        return list(reversed(self._datasets.values()))

    async def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        self._check("delete_dataset")
        record = self._dataset(dataset_id)
        users = [job.id for job in self._jobs.values() if dataset_id in {job.dataset_id, job.validation_dataset_id}]
        if users:
            raise ConflictError(
                f"dataset {dataset_id} is used by {len(users)} jobs ({', '.join(users[:3])}); delete these first, "
                f"GET /api/jobs?dataset_id={dataset_id} lists them"
            )
        return self._datasets.pop(record.id)

    # Jobs

    async def add_job(self, record: JobRecord) -> JobRecord:
        self._check("add_job")
        known = self._of_key(record.idempotency_key)
        if known is not None:
            if known.request_hash != record.request_hash:
                raise ConflictError(f"the Idempotency-Key {record.idempotency_key!r} came with another request before")
            return known
        for dataset_id in (record.dataset_id, record.validation_dataset_id):
            if dataset_id is not None:
                self._dataset(dataset_id)
        num_pending = sum(job.status is JobStatus.PENDING for job in self._jobs.values())
        if num_pending >= self.max_pending_jobs:
            raise TooManyRequestsError(f"{num_pending} jobs wait already (SIENN_MAX_PENDING_JOBS)", retry_after_s=60)
        if record.id not in self._jobs:
            self.put(record)
            self._note(record.id, "created", record.message)
        return self._jobs[record.id]

    async def job_of_key(self, idempotency_key: str) -> JobRecord | None:
        self._check("job_of_key")
        return self._of_key(idempotency_key)

    def _of_key(self, key: str | None) -> JobRecord | None:
        return next((job for job in self._jobs.values() if key is not None and job.idempotency_key == key), None)

    async def job(self, job_id: str) -> JobRecord:
        self._check("job")
        return self._job(job_id)

    def _job(self, job_id: str) -> JobRecord:
        if job_id not in self._jobs:
            raise NotFoundError(f"Job {job_id} not found")
        return self._jobs[job_id]

    async def jobs(self, query: JobQuery) -> JobPage:
        self._check("jobs")
        fitting = [job for job in reversed(self._jobs.values()) if _fits(job, query)]
        before = _arrival_of(query.cursor) if query.cursor is not None else None
        rest = [job for job in fitting if before is None or self._arrivals[job.id] < before]
        page = rest if query.limit is None else rest[: query.limit]
        next_cursor = _cursor_of(self._arrivals[page[-1].id]) if len(page) < len(rest) else None
        return JobPage(jobs=page, count=len(fitting), next_cursor=next_cursor)

    async def cancel_job(self, job_id: str) -> JobRecord:
        self._check("cancel_job")
        job = self._job(job_id)
        if job.status.is_final:
            raise ConflictError(f"Job {job_id} is already '{job.status}'")
        if job.status is JobStatus.RUNNING:  # its end is known once Ray says so
            changes: dict[str, Any] = {"facts": {**job.facts, "phase": "stopping"}}
        else:
            changes = {"facts": {**job.facts, "phase": "cancelled"}, "ended_at": utc_now()}
        return self._change(job, "cancelled", status=JobStatus.CANCELLED, message="Cancelled", **changes)

    async def pause_job(self, job_id: str) -> JobRecord:
        self._check("pause_job")
        job = self._job(job_id)
        if job.status is JobStatus.PENDING:
            return self._change(job, "paused", status=JobStatus.PAUSED, message="Paused while it waited")
        if job.status is not JobStatus.RUNNING or job.is_pausing:
            raise ConflictError(f"Job {job_id} is '{job.status}'; only pending and running jobs can be paused")
        facts = {**job.facts, "phase": "pausing", PAUSE_REQUESTED_AT: utc_now().isoformat()}
        return self._change(job, "phase", message="Pausing", facts=facts)

    async def resume_job(self, job_id: str) -> JobRecord:
        self._check("resume_job")
        job = self._job(job_id)
        if job.is_pausing:
            facts = {name: value for name, value in job.facts.items() if name != PAUSE_REQUESTED_AT}
            return self._change(job, "resumed", message="Resumed", facts={**facts, "phase": "resuming"})
        if job.status is not JobStatus.PAUSED:
            raise ConflictError(f"Job {job_id} is '{job.status}'; only paused jobs can be resumed")
        changes = {"submission_id": None, "attempt_base": job.attempt}
        return self._change(job, "resumed", status=JobStatus.PENDING, message="Waiting to go on", **changes)

    async def retry_job(self, job_id: str) -> JobRecord:
        self._check("retry_job")
        job = self._job(job_id)
        if job.status not in {JobStatus.FAILED, JobStatus.CANCELLED}:
            raise ConflictError(f"Job {job_id} is '{job.status}'; only failed and cancelled jobs can be retried")
        self._check_stopped(job)
        return self._change(
            job,
            "retried",
            status=JobStatus.PENDING,
            message="Waiting to be tried again",
            progress=0,
            failure_reason=None,
            submission_id=None,
            attempt_base=job.attempt,
            ended_at=None,
            facts={},
        )

    async def delete_job(self, job_id: str) -> JobRecord:
        self._check("delete_job")
        job = self._job(job_id)
        if not job.status.is_final:
            raise ConflictError(f"Job {job_id} is '{job.status}'; cancel it first")
        self._check_stopped(job)
        for records in (self._events, self._points):
            records.pop(job_id, None)
        return self._jobs.pop(job_id)

    def _check_stopped(self, job: JobRecord) -> None:
        if job.facts.get("phase") == "stopping":
            raise ConflictError(f"Job {job.id} is cancelled, but its run is still being stopped")

    def _change(self, job: JobRecord, kind: str, **changes: Any) -> JobRecord:
        self._jobs[job.id] = job.model_copy(update={**changes, "updated_at": utc_now()})
        self._note(job.id, kind, self._jobs[job.id].message)
        return self._jobs[job.id]

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        self._check("events")
        self._job(job_id)
        return [event for event in self._events[job_id] if event.seq > after][:limit]

    async def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        self._check("metric_points")
        self._job(job_id)
        points = sorted(self._points[job_id], key=lambda point: point.step)
        if len(points) <= max_points:
            return points
        if max_points == 1:
            return points[-1:]
        return [points[place * (len(points) - 1) // (max_points - 1)] for place in range(max_points)]

    # Exports

    async def request_export(self, record: ExportRecord) -> ExportRecord:
        self._check("request_export")
        known = self._exports.get(record.id)
        if known is None or known.status in {ExportStatus.FAILED, ExportStatus.CANCELLED}:
            self.put_export(record)
            self.on_export(record)
        return self._exports[record.id]

    async def redo_export(self, export_id: str, words: str) -> ExportRecord:
        self._check("redo_export")
        waiting = {"status": ExportStatus.PENDING, "message": words, "file_name": None}
        self.put_export(self._export(export_id).model_copy(update=waiting))
        self.on_export(self._export(export_id))
        return self._export(export_id)

    def put_export(self, record: ExportRecord) -> None:
        """Set an export, as if the tracker had changed it."""
        self._exports[record.id] = record

    def _export(self, export_id: str) -> ExportRecord:
        if export_id not in self._exports:
            raise NotFoundError(f"Export {export_id} not found")
        return self._exports[export_id]

    async def export(self, export_id: str) -> ExportRecord:
        self._check("export")
        self.on_export_look(self._export(export_id))
        return self._export(export_id)

    async def exports(self, job_id: str) -> list[ExportRecord]:
        self._check("exports")
        self._job(job_id)
        return [export for export in reversed(self._exports.values()) if export.job_id == job_id]

    async def cancel_export(self, export_id: str) -> ExportRecord:
        self._check("cancel_export")
        known = self._export(export_id)
        if known.status.is_final:
            raise ConflictError(f"Export {export_id} is '{known.status}' and can't be cancelled")
        self.put_export(known.model_copy(update={"status": ExportStatus.CANCELLED, "message": "Cancelled"}))
        return self._export(export_id)

    async def delete_export(self, export_id: str) -> ExportRecord:
        self._check("delete_export")
        return self._exports.pop(self._export(export_id).id)

    async def signing_key(self) -> bytes:
        self._check("signing_key")
        return b"k" * 32

    # Numbers

    async def overview(self) -> Overview:
        self._check("overview")
        jobs = list(self._jobs.values())
        since = utc_now() - timedelta(hours=24)
        recent = [job.status for job in jobs if job.ended_at is not None and job.ended_at >= since]
        spans = [
            (job.ended_at - job.started_at).total_seconds()
            for job in jobs
            if job.status is JobStatus.COMPLETED and job.started_at and job.ended_at
        ]
        return Overview(
            num_jobs={status: sum(job.status is status for job in jobs) for status in JobStatus},
            num_completed_24h=recent.count(JobStatus.COMPLETED),
            num_failed_24h=recent.count(JobStatus.FAILED),
            avg_training_s=sum(spans) / len(spans) if spans else None,
            num_datasets=len(self._datasets),
            datasets_size_bytes=sum(dataset.size_bytes for dataset in self._datasets.values()),
        )

    async def add_metrics(self, batch: MetricBatch) -> None:
        self._check("add_metrics")
        if (batch.source, batch.number) in self._batches:
            return
        self._batches.add((batch.source, batch.number))
        for sample in batch.increments:
            self._sums[sample.name, sample.labels] += sample.value
        self._gauges[batch.source] = batch.gauges

    async def metric_samples(self) -> list[Sample]:
        self._check("metric_samples")
        by_status = [
            Sample("sienn_jobs", (("status", status.value),), sum(job.status is status for job in self._jobs.values()))
            for status in JobStatus
        ]
        sums = [Sample(name, labels, value) for (name, labels), value in self._sums.items()]
        return [*by_status, *sums, *(sample for gauges in self._gauges.values() for sample in gauges)]

    async def health(self) -> TrackerHealth:
        self._check("health")
        return self.tracker_health

    # For tests alone

    def put(self, *records: DatasetRecord | JobRecord) -> None:
        """Have these records stand, in this order."""
        for record in records:
            if isinstance(record, JobRecord):
                self._arrivals.setdefault(record.id, len(self._arrivals) + 1)
                self._jobs[record.id] = record
            else:
                self._datasets[record.id] = record

    def _note(self, job_id: str, kind: str, message: str) -> None:
        self._num_events += 1
        event = JobEvent(seq=self._num_events, kind=kind, message=message, created_at=utc_now())
        self._events[job_id].append(event)

    def put_events(self, job_id: str, *events: JobEvent) -> None:
        """Have these events of a job stand."""
        self._events[job_id].extend(events)
        self._num_events = max(self._num_events, *(event.seq for event in events))

    def put_points(self, job_id: str, *points: MetricPoint) -> None:
        """Have these points of a job's curves stand."""
        self._points[job_id].extend(points)

    def set_health(self, **changes: Any) -> None:
        """Have `health` answer with other fields."""
        self.tracker_health = replace(self.tracker_health, **changes)

    @property
    def last_job(self) -> JobRecord:
        return list(self._jobs.values())[-1]

    @property
    def num_records(self) -> int:
        return len(self._datasets) + len(self._jobs)


def _fits(job: JobRecord, query: JobQuery) -> bool:
    return (
        query.status in {None, job.status}
        and query.dataset_id in {None, job.dataset_id, job.validation_dataset_id}
        and query.base_model in {None, job.config.base_model}
        and query.name in {None, job.name}
        and query.labels.items() <= job.labels.items()
    )


def _cursor_of(arrival: int) -> str:
    return base64.urlsafe_b64encode(str(arrival).encode()).decode()


def _arrival_of(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor))
    except ValueError:  # also what `binascii` and `decode` raise
        raise InvalidInputError(f"{cursor[:80]!r} is no cursor; take next_cursor of the page before") from None
