"""How a job changes: what is written, counted and told, all in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sienn_ray import metrics
from sienn_ray.jobs import job_events, metric_sums
from sienn_ray.jobs.job_events import EventKind
from sienn_ray.jobs.records import insert_job, write_job
from sienn_ray.jobs.schema import PAUSE_REQUESTED_AT, JobRecord, JobStatus, check_transition
from sienn_ray.metrics import Sample

# The statuses that are told and counted as they are entered; those of waiting and running need more words.
_EVENT_OF = {
    JobStatus.PAUSED: EventKind.PAUSED,
    JobStatus.COMPLETED: EventKind.COMPLETED,
    JobStatus.FAILED: EventKind.FAILED,
    JobStatus.CANCELLED: EventKind.CANCELLED,
}
# Facts that rise as a run goes on, over all its attempts; what they rise by is counted.
_TRAINING_COUNTERS = {
    "num_tokens": metrics.TRAINING_TOKENS_TOTAL,
    "train_seconds": metrics.TRAINING_SECONDS_TOTAL,
}


def add(connection: sa.Connection, record: JobRecord, moment: datetime) -> JobRecord:
    """Add a job that isn't there: a waiting one, or one that runs already as a Ray job started by hand."""
    runs = record.status is JobStatus.RUNNING and record.submission_id is not None
    added = record.model_copy(update={"started_at": record.started_at or record.created_at}) if runs else record
    insert_job(connection, added)
    _count_entry(connection, JobStatus.PENDING)
    job_events.add(connection, added.id, EventKind.CREATED, added.message, moment)
    if runs:
        _count_entry(connection, JobStatus.RUNNING)
        _tell_of_start(connection, added, moment)
    return added


def change(
    connection: sa.Connection, job: JobRecord, moment: datetime, *, status: JobStatus | None = None, **changes: Any
) -> JobRecord:
    """Change a job's fields, and its status if the table of transitions allows that.

    `facts` are merged into those that stand, and `progress` doesn't go back unless an ended job starts anew. A job that
    leaves `running` is not to be paused any more.

    Raises:
        TransitionError: The status change isn't allowed; nothing is written then.
    """
    if status is not None:
        check_transition(job.id, job.status, status)
        changes["status"] = status
        if status.is_final:
            changes.setdefault("ended_at", moment)
    if "progress" in changes and not job.status.is_final:
        changes["progress"] = max(changes["progress"], job.progress)
    if "facts" in changes:
        _count_training(connection, job.facts, changes["facts"])
        changes["facts"] = {**job.facts, **changes["facts"]}
    if status is not None and status is not JobStatus.RUNNING:
        changes["facts"] = _without_wishes(changes.get("facts", job.facts))
    changed = job.model_copy(update={**changes, "updated_at": moment})
    write_job(connection, changed)
    if status in _EVENT_OF:
        _count_entry(connection, status)
        reason = {"failure_reason": changed.failure_reason} if changed.failure_reason else {}
        job_events.add(connection, job.id, _EVENT_OF[status], changed.message, moment, **reason)
    return changed


def note_start(connection: sa.Connection, job: JobRecord, submission_id: str, moment: datetime) -> JobRecord:
    """Ray has taken a running job's attempt; the job's first start ends its wait in the queue."""
    started = change(connection, job, moment, submission_id=submission_id, started_at=job.started_at or moment)
    _tell_of_start(connection, started, moment)
    if job.started_at is None:
        _count_entry(connection, JobStatus.RUNNING)
        wait_s = max(0.0, (moment - job.created_at).total_seconds())
        metric_sums.add_up(connection, metrics.observation(metrics.QUEUE_WAIT_SECONDS, wait_s))
    return started


def requeue(connection: sa.Connection, job: JobRecord, reason: str, moment: datetime) -> JobRecord:
    """A running job's attempt is lost; it waits for the next one."""
    words = f"Attempt {job.attempt} was interrupted; waiting to resume from the last checkpoint"
    lost = f"Attempt {job.attempt} was lost: {reason}"
    job_events.add(connection, job.id, EventKind.INTERRUPTED, lost, moment, attempt=job.attempt)
    job_events.add(connection, job.id, EventKind.QUEUED, words, moment)
    facts = {"phase": "starting"}
    return change(connection, job, moment, status=JobStatus.PENDING, submission_id=None, message=words, facts=facts)


def put_back(connection: sa.Connection, job: JobRecord, submission_id: str, words: str, moment: datetime) -> JobRecord:
    """Ray didn't say whether it has taken a running job's attempt: it waits again, and this counts as no attempt."""
    if job.is_pausing:  # a look at Ray's job decides
        return job
    return change(
        connection,
        job,
        moment,
        status=JobStatus.PENDING,
        attempt=job.attempt - 1,
        submission_id=submission_id,
        message=f"Waiting for Ray's job API: {words}",
    )


def _without_wishes(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != PAUSE_REQUESTED_AT}


def _tell_of_start(connection: sa.Connection, job: JobRecord, moment: datetime) -> None:
    job_events.add(
        connection,
        job.id,
        EventKind.STARTED,
        f"Attempt {job.attempt} started as Ray job {job.submission_id}",
        moment,
        attempt=job.attempt,
        ray_submission_id=job.submission_id,
    )


def _count_entry(connection: sa.Connection, status: JobStatus) -> None:
    metric_sums.add_up(connection, [Sample(metrics.JOBS_TOTAL.name, (("status", status.value),), 1.0)])


def _count_training(connection: sa.Connection, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Count what the run has done since; a resumed run that goes over steps again falls first, which isn't counted."""
    rises = [
        Sample(metric.name, (), _number(after[fact]) - _number(before.get(fact)))
        for fact, metric in _TRAINING_COUNTERS.items()
        if fact in after
    ]
    metric_sums.add_up(connection, rises)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
