"""Pausing and resuming jobs.

The wish to pause a running job is in its record, `pause_requested_at`, and stands until the job leaves `running`
or a user withdraws it. The run hears of it in the answer to its next report, writes a checkpoint and ends.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from sienn_ray.errors import ConflictError
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus
from sienn_ray.jobs.store import job_changes, job_events, tombstones
from sienn_ray.jobs.store.job_events import EventKind
from sienn_ray.training.reporting import RunProgress

WORDS_OF_PAUSE = "Paused; it goes on from its last checkpoint once it is resumed"
WORDS_OF_LOSS = "Paused, after its run had ended; it goes on from its last checkpoint once it is resumed"


def pause(connection: sa.Connection, job: JobRecord, moment: datetime) -> JobRecord:
    """Pause a waiting job, or note the wish to pause a running one.

    Raises:
        ConflictError: It has ended, is paused, or is being paused already.
    """
    if job.status not in {JobStatus.PENDING, JobStatus.RUNNING}:
        raise ConflictError(f"Job {job.id} is '{job.status}'; only pending and running jobs can be paused")
    if job.is_pausing:
        raise ConflictError(f"Job {job.id} is being paused already; resume it to have it go on")
    if job.status is JobStatus.PENDING and job.submission_id is None:
        return _enter(connection, job, moment, "Paused while it waited")
    words = "Pausing; its run writes a checkpoint and ends"
    changes: job_changes.JobChanges = {"phase": JobPhase.PAUSING, "pause_requested_at": moment, "message": words}
    if job.status is JobStatus.PENDING:
        # Ray's job API didn't say whether it has taken the next attempt: that one counts as running until it is known.
        changes |= {"attempt": job.attempt + 1, "submission_id": None}
        pausing = job_changes.change(connection, job, moment, status=JobStatus.RUNNING, **changes)
    else:
        pausing = job_changes.change(connection, job, moment, **changes)
    phase = JobPhase.PAUSING.value
    job_events.add(connection, job.id, EventKind.PHASE, words, moment, phase=phase, attempt=pausing.attempt)
    return pausing


def resume(connection: sa.Connection, job: JobRecord, moment: datetime) -> JobRecord:
    """Put a paused job back into the queue, at its old place, or withdraw the wish to pause a running one.

    Raises:
        ConflictError: It isn't paused, or its run is being stopped, as it didn't pause in time.
    """
    if job.is_pausing:
        return _withdraw(connection, job, moment)
    if job.status is not JobStatus.PAUSED:
        raise ConflictError(f"Job {job.id} is '{job.status}'; only paused jobs can be resumed")
    tombstones.check_checkpoints(connection, job.id)
    return _go_on(connection, job, moment, "Resumed after it was paused")


def note_pause(connection: sa.Connection, job: JobRecord, moment: datetime, message: str) -> JobRecord:
    """The run of a job has ended so that it can go on later; one whose pause was withdrawn too late goes on at once."""
    if job.is_pausing:
        return _enter(connection, job, moment, message)
    return _go_on(connection, job, moment, "Resumed, after its run had begun to pause")


def note_overdue(connection: sa.Connection, job: JobRecord, moment: datetime) -> JobRecord:
    """The run didn't pause in time and is being stopped, so that the wish can't be withdrawn any more."""
    if job.is_stopping:
        return job
    words = "Pausing; its run didn't write a checkpoint in time and is being stopped"
    return job_changes.change(connection, job, moment, message=words, phase=JobPhase.STOPPING)


def note_silence(connection: sa.Connection, job: JobRecord, moment: datetime, words: str) -> JobRecord:
    """The run has reported nothing for too long, and is being stopped."""
    return job_changes.change(connection, job, moment, message=words, phase=JobPhase.STOPPING)


def _enter(connection: sa.Connection, job: JobRecord, moment: datetime, message: str) -> JobRecord:
    return job_changes.change(
        connection,
        job,
        moment,
        status=JobStatus.PAUSED,
        message=message,
        phase=JobPhase.PAUSED,
        run=RunProgress(time_left_s=0.0),
    )


def _withdraw(connection: sa.Connection, job: JobRecord, moment: datetime) -> JobRecord:
    if job.is_stopping:
        raise ConflictError(f"Job {job.id} is being paused, and its run is being stopped; try again in a moment")
    words = "Resumed before its run had paused"
    job_events.add(connection, job.id, EventKind.RESUMED, words, moment)
    # The run's next report says which phase it is in.
    return job_changes.change(connection, job, moment, message=words, phase=JobPhase.RESUMING, pause_requested_at=None)


def _go_on(connection: sa.Connection, job: JobRecord, moment: datetime, words: str) -> JobRecord:
    waiting = "Waiting to start" if job.started_at is None else "Waiting to go on from the last checkpoint"
    job_events.add(connection, job.id, EventKind.RESUMED, words, moment)
    job_events.add(connection, job.id, EventKind.QUEUED, waiting, moment)
    return job_changes.change(
        connection,
        job,
        moment,
        status=JobStatus.PENDING,
        message=waiting,
        submission_id=None,
        attempt_base=job.attempt,
        num_losses=0,
        phase=JobPhase.STARTING,
    )
