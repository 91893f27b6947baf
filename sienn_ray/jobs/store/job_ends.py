"""Cancellation, retry and deletion of jobs."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from sienn_ray.errors import ConflictError
from sienn_ray.jobs.deletion_schema import DeletionKind
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus
from sienn_ray.jobs.store import attempt_logs, export_records, job_changes, job_curves, job_events, overview, tombstones
from sienn_ray.jobs.store.job_events import EventKind
from sienn_ray.jobs.store.tables import job_datasets, job_labels, jobs
from sienn_ray.training.reporting import RunProgress


def cancel(connection: sa.Connection, job: JobRecord, moment: datetime) -> JobRecord:
    """End a waiting, running or paused job. One that Ray may know has no `ended_at` until Ray says that it is over.

    Raises:
        ConflictError: It has ended.
    """
    if job.status.is_final:
        raise ConflictError(
            f"Job {job.id} is already '{job.status}'; only pending, running and paused jobs can be cancelled"
        )
    attempt = job.attempt
    if job.status is JobStatus.PAUSED:
        words, phase, ended_at = "Cancelled while it was paused", JobPhase.CANCELLED, moment
    elif job.status is JobStatus.PENDING and job.submission_id is None:
        words, phase, ended_at = "Cancelled while it waited", JobPhase.CANCELLED, moment
    else:
        words, phase, ended_at = "Cancelled; its run is being stopped", JobPhase.STOPPING, None
        # What waits with a submission is an attempt that may have begun: the next one needs a Ray job of its own.
        attempt += job.status is JobStatus.PENDING
    return job_changes.change(
        connection,
        job,
        moment,
        status=JobStatus.CANCELLED,
        attempt=attempt,
        message=words,
        ended_at=ended_at,
        phase=phase,
        run=RunProgress(time_left_s=0.0),
    )


def note_stop(connection: sa.Connection, job: JobRecord, moment: datetime) -> None:
    """The run of a cancelled job has ended; a repeat changes nothing."""
    if job.status is JobStatus.CANCELLED and job.is_stopping:
        job_changes.change(connection, job, moment, message="Cancelled", ended_at=moment, phase=JobPhase.CANCELLED)


def retry(connection: sa.Connection, job: JobRecord, moment: datetime, *, has_checkpoint: bool = True) -> JobRecord:
    """Put a failed or cancelled job back into the queue, at its old place; its attempts count anew.

    Args:
        connection: Of the transaction.
        job: The job.
        moment: Now.
        has_checkpoint: Whether its run left one, which has the weights that it started from.

    Raises:
        ConflictError: It is neither, its run is still being stopped, or the job that it starts from was deleted.
    """
    if job.status not in {JobStatus.FAILED, JobStatus.CANCELLED}:
        raise ConflictError(f"Job {job.id} is '{job.status}'; only failed and cancelled jobs can be retried")
    _check_stopped(job)
    tombstones.check_checkpoints(connection, job.id)
    if not has_checkpoint:
        _check_start(connection, job)
    words = "Waiting to be tried again; a run that left a checkpoint goes on from there"
    job_events.add(connection, job.id, EventKind.RETRIED, f"Tried again after it was '{job.status}'", moment)
    job_events.add(connection, job.id, EventKind.QUEUED, words, moment)
    # Its run goes on counting where the last one stopped; all else begins anew.
    lasting = RunProgress(num_tokens=job.run.num_tokens, train_seconds=job.run.train_seconds)
    return job_changes.change(
        connection,
        job.model_copy(update={"phase": None, "run": lasting, "other_facts": {}}),
        moment,
        status=JobStatus.PENDING,
        message=words,
        failure_reason=None,
        submission_id=None,
        attempt_base=job.attempt,
        num_losses=0,
        loss_step=0,
        log_tail=None,
        ended_at=None,
    )


def delete(connection: sa.Connection, job: JobRecord, moment: datetime) -> JobRecord:
    """Forget an ended job, with its exports, labels, events and curves, and have all its files deleted.

    Raises:
        ConflictError: It hasn't ended, or a job starts from its adapter that hasn't.
    """
    if not job.status.is_final:
        raise ConflictError(
            f"Job status is '{job.status}', and only jobs that have ended can be deleted; cancel it first "
            f"(POST /api/jobs/{job.id}/cancel)"
        )
    if job.is_stopping:
        raise ConflictError(f"Job {job.id} is still stopping, and would write what is deleted; delete it in a moment")
    _check_not_awaited(connection, job)
    export_records.delete_of_job(connection, job.id, moment)
    tombstones.add(connection, DeletionKind.JOB, job.id, moment)
    overview.remember_end(connection, job, moment)
    attempt_logs.forget(connection, job.id)
    job_events.delete(connection, job.id)
    job_curves.delete(connection, job.id)
    connection.execute(sa.delete(job_labels).where(job_labels.c.job_id == job.id))
    connection.execute(sa.delete(job_datasets).where(job_datasets.c.job_id == job.id))
    connection.execute(sa.delete(jobs).where(jobs.c.id == job.id))
    return job


def _check_stopped(job: JobRecord) -> None:
    if job.is_stopping:
        raise ConflictError(f"Job {job.id} is cancelled, but its run is still being stopped; try again in a moment")


def _check_start(connection: sa.Connection, job: JobRecord) -> None:
    """Refuse to go on without the adapter that the job starts from."""
    if job.from_job is None or connection.scalar(sa.select(jobs.c.seq).where(jobs.c.id == job.from_job)) is not None:
        return
    raise ConflictError(
        f"Job {job.id} starts from the adapter of job {job.from_job}, which was deleted, and has left no checkpoint to "
        "go on from; start a new job (POST /api/start-finetuning) from another job, or from none"
    )


def _check_not_awaited(connection: sa.Connection, job: JobRecord) -> None:
    """Refuse to delete an adapter that a job is yet to start from; one that has ended has left it behind."""
    final = [status.value for status in JobStatus if status.is_final]
    awaits = (jobs.c.from_job == job.id) & jobs.c.status.not_in(final)
    follower = connection.execute(sa.select(jobs.c.id, jobs.c.status).where(awaits).limit(1)).first()
    if follower is not None:
        raise ConflictError(
            f"Job {follower.id} starts from the adapter of job {job.id} and is '{follower.status}'; delete this one "
            f"when that one has ended, or cancel that one first (POST /api/jobs/{follower.id}/cancel)"
        )
