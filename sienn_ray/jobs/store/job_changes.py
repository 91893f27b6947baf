"""Changes of a job: written, counted and told in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

import sqlalchemy as sa

from sienn_ray import metrics
from sienn_ray.access.usage import UsageCounts, UsageKey
from sienn_ray.errors import FailureReason
from sienn_ray.jobs.plain_text import one_line
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus
from sienn_ray.jobs.store import attempt_logs, job_events, metric_sums, queue, usage_sums, webhook_outbox
from sienn_ray.jobs.store.job_events import EventKind
from sienn_ray.jobs.store.queue import QueueKind
from sienn_ray.jobs.store.records import insert_job, write_job
from sienn_ray.jobs.transitions import check_job_transition
from sienn_ray.metrics import Sample
from sienn_ray.training.reporting import RunProgress
from sienn_ray.training.summary import RunSummary

# The statuses that are told and counted as they are entered; those of waiting and running need more words.
_EVENT_OF = {
    JobStatus.PAUSED: EventKind.PAUSED,
    JobStatus.COMPLETED: EventKind.COMPLETED,
    JobStatus.FAILED: EventKind.FAILED,
    JobStatus.CANCELLED: EventKind.CANCELLED,
}


class JobChanges(TypedDict, total=False):
    """Fields of a job that change, beside its status."""

    progress: int
    message: str
    failure_reason: FailureReason | None
    attempt: int
    attempt_base: int
    num_losses: int
    loss_step: int
    log_tail: str | None
    submission_id: str | None
    phase: JobPhase
    pause_requested_at: datetime | None
    run: RunProgress
    summary: RunSummary
    started_at: datetime | None
    ended_at: datetime | None


def add(connection: sa.Connection, record: JobRecord, moment: datetime) -> JobRecord:
    """Add a job that isn't there: a waiting one, or one that runs already as a Ray job started by hand."""
    runs = record.status is JobStatus.RUNNING and record.submission_id is not None
    added = record.model_copy(update={"started_at": record.started_at or record.created_at}) if runs else record
    queue.note_wait(connection, QueueKind.JOBS, added.owner)
    insert_job(connection, added)
    _count_entry(connection, JobStatus.PENDING)
    job_events.add(connection, added.id, EventKind.CREATED, added.message, moment)
    for words in added.warnings:
        job_events.add(connection, added.id, EventKind.WARNING, words, moment)
    if runs:
        _count_entry(connection, JobStatus.RUNNING)
        _tell_of_start(connection, added, moment)
    return added


def change(
    connection: sa.Connection,
    job: JobRecord,
    moment: datetime,
    *,
    status: JobStatus | None = None,
    **changes: Unpack[JobChanges],
) -> JobRecord:
    """Change a job's fields, and its status if the table of transitions allows that.

    `run` adds to what the run has reported before, and `progress` doesn't go back, since a
    run goes on from its last checkpoint. A
    job that leaves `running` is not to be paused any more.

    Raises:
        TransitionError: The status change isn't allowed; nothing is written then.
    """
    if status is not None:
        check_job_transition(job.id, job.status, status)
        _note_turn(connection, job, status)
        if status.is_final:
            changes.setdefault("ended_at", moment)
    if "progress" in changes:
        changes["progress"] = max(changes["progress"], job.progress)
    if "run" in changes:
        _count_training(connection, job, job.run, changes["run"], moment)
        changes["run"] = job.run.updated(changes["run"])
    if "summary" in changes:
        _count_training(connection, job, changes.get("run", job.run), changes["summary"], moment)
    if "message" in changes:
        changes["message"] = one_line(changes["message"])
    if status is not None and status is not JobStatus.RUNNING:
        changes["pause_requested_at"] = None
    changed = job.model_copy(update={**changes, "status": status or job.status, "updated_at": moment})
    write_job(connection, changed)
    if status in _EVENT_OF:
        _count_entry(connection, status)
        reason = {"failure_reason": changed.failure_reason} if changed.failure_reason else {}
        job_events.add(connection, job.id, _EVENT_OF[status], changed.message, moment, **reason)
        webhook_outbox.tell_of_job(connection, changed, moment)
    return changed


def _note_turn(connection: sa.Connection, job: JobRecord, status: JobStatus) -> None:
    """Have the queue know who has waited and who has started."""
    if status is JobStatus.PENDING:
        queue.note_wait(connection, QueueKind.JOBS, job.owner)
    elif status is JobStatus.RUNNING and job.status is JobStatus.PENDING:
        queue.note_start(connection, QueueKind.JOBS, job.owner)


def note_start(connection: sa.Connection, job: JobRecord, submission_id: str, moment: datetime) -> JobRecord:
    """Ray has taken a running job's attempt; the job's first start ends its wait in the queue."""
    started = change(connection, job, moment, submission_id=submission_id, started_at=job.started_at or moment)
    _tell_of_start(connection, started, moment)
    if job.started_at is None:
        _count_entry(connection, JobStatus.RUNNING)
        wait_s = max(0.0, (moment - job.created_at).total_seconds())
        metric_sums.add_up(connection, metrics.observation(metrics.QUEUE_WAIT_SECONDS, wait_s))
    return started


def requeue(
    connection: sa.Connection,
    job: JobRecord,
    reason: str,
    moment: datetime,
    *,
    is_counted: bool = True,
    log_tail: str | None = None,
) -> JobRecord:
    """A running job's attempt is lost; it waits for the next one.

    Args:
        connection: A transaction.
        job: The job.
        reason: Why it is lost.
        moment: The time.
        is_counted: Whether it is a loss of the run's own, rather than of the cluster that it was on.
        log_tail: The end of the run's log.
    """
    step = max(job.run.current_step or 0, job.loss_step)
    words = f"Attempt {job.attempt} was interrupted; waiting to resume from the last checkpoint"
    lost = f"Attempt {job.attempt} was lost: {reason}"
    job_events.add(connection, job.id, EventKind.INTERRUPTED, lost, moment, attempt=job.attempt)
    job_events.add(connection, job.id, EventKind.QUEUED, words, moment)
    return change(
        connection,
        job,
        moment,
        status=JobStatus.PENDING,
        submission_id=None,
        message=words,
        phase=JobPhase.STARTING,
        log_tail=log_tail,
        num_losses=job.num_losses_with_one_more if is_counted else job.num_losses,
        loss_step=step if is_counted else job.loss_step,
    )


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
        message=words,
    )


def _tell_of_start(connection: sa.Connection, job: JobRecord, moment: datetime) -> None:
    if job.submission_id is not None:
        attempt_logs.expect(connection, job.id, job.attempt, job.submission_id, moment)
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


def _count_training(
    connection: sa.Connection, job: JobRecord, before: RunProgress, after: RunProgress | RunSummary, moment: datetime
) -> None:
    """Count what the run has done since; a resumed run that goes over steps again falls first, which isn't counted."""
    rises = [
        (metrics.TRAINING_TOKENS_TOTAL, before.num_tokens, after.num_tokens),
        (metrics.TRAINING_SECONDS_TOTAL, before.train_seconds, after.train_seconds),
    ]
    samples = [Sample(metric.name, (), new - (old or 0.0)) for metric, old, new in rises if new is not None]
    metric_sums.add_up(connection, samples)
    if after.train_seconds is not None:
        _count_usage(connection, job, before, max(0.0, after.train_seconds - (before.train_seconds or 0.0)), moment)


def _count_usage(connection: sa.Connection, job: JobRecord, run: RunProgress, seconds: float, moment: datetime) -> None:
    """Add a run's seconds to what its owner has used; a run that hasn't said what it reserves has one CPU."""
    cpus = 1.0 if run.reserved_cpus is None else run.reserved_cpus
    counts = UsageCounts(training_cpu_s=seconds * cpus, training_gpu_s=seconds * (run.reserved_gpus or 0.0))
    key = UsageKey(moment.date(), job.owner, job.key_id or "", job.config.base_model, job.id)
    if seconds > 0:
        usage_sums.add_up(connection, [(key, counts)])
