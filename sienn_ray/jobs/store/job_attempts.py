"""Fencing: of a job's attempts only the one that is awaited counts."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from sienn_ray.errors import FencedError
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus
from sienn_ray.jobs.store import job_changes


def confirmed(connection: sa.Connection, job: JobRecord, attempt: int, moment: datetime) -> JobRecord | None:
    """Return the job if this attempt runs; None if it isn't awaited.

    An attempt that was submitted, while Ray's job API didn't answer, confirms its start by its first word.
    """
    if job.is_running(attempt):
        return job
    if job.status is not JobStatus.PENDING or job.submission_id is None or attempt != job.attempt + 1:
        return None
    submission_id = job.submission_id
    words = "The training program has started"
    started = job_changes.change(
        connection, job, moment, status=JobStatus.RUNNING, attempt=attempt, message=words, phase=JobPhase.STARTING
    )
    return job_changes.note_start(connection, started, submission_id, moment)


def check_awaited(connection: sa.Connection, job: JobRecord, attempt: int, moment: datetime) -> JobRecord:
    """Return the job if this attempt runs, as `confirmed` does.

    Raises:
        FencedError: It isn't awaited.
    """
    found = confirmed(connection, job, attempt, moment)
    if found is None:
        raise FencedError(
            f"Job {job.id} is '{job.status}' with attempt {job.attempt} and doesn't await attempt {attempt} any more"
        )
    return found
