"""Progress reports of running attempts, as they go into the record, the events and the curves."""

from __future__ import annotations

import logging
from datetime import datetime

import sqlalchemy as sa

from sienn_ray.jobs.schema import JobPhase, JobRecord
from sienn_ray.jobs.store import job_attempts, job_changes, job_curves, job_events
from sienn_ray.jobs.store.job_events import EventKind
from sienn_ray.jobs.store.records import read_job
from sienn_ray.training.reporting import Progress, RunCommand

logger = logging.getLogger(__name__)


def take(connection: sa.Connection, job_id: str, attempt: int, progress: Progress, moment: datetime) -> RunCommand:
    """Take one report; one of an attempt that isn't awaited is dropped, and that attempt told to stop.

    Returns:
        What is wanted of the run.

    Raises:
        NotFoundError: There is no such job.
    """
    known = read_job(connection, job_id)
    job = job_attempts.confirmed(connection, known, attempt, moment)
    if job is None:
        logger.info("job %s is '%s': its attempt %d isn't awaited and is told to stop", known.id, known.status, attempt)
        return RunCommand.STOP
    if job.is_stopping and not job.is_pausing:  # it was silent for too long, and is being replaced
        return RunCommand.STOP
    is_overtaken = _add_point(connection, job, progress, moment)
    if progress.eval_loss is None and progress.epoch_loss is not None:
        told = {"train_loss": progress.epoch_loss, "epoch": _epoch_of(job, progress)}
        job_events.add(connection, job_id, EventKind.EPOCH, progress.message, moment, **told)
    if progress.eval_loss is not None:
        _tell_of_evaluation(connection, job, progress, moment)
    if progress.warning is not None:
        job_events.add(connection, job_id, EventKind.WARNING, progress.warning, moment)
    if not is_overtaken:
        _tell_of_progress(connection, job, progress, moment)
    return RunCommand.PAUSE if job.is_pausing else RunCommand.GO_ON


def _tell_of_progress(connection: sa.Connection, job: JobRecord, progress: Progress, moment: datetime) -> None:
    if job.is_pausing:  # stands in its own phase and says so, whatever its run does meanwhile
        job_changes.change(connection, job, moment, progress=progress.percent, run=progress)
        return
    phase = JobPhase(progress.phase.value)
    if phase is not job.phase and progress.eval_loss is None:  # an evaluation's end is an event of its own
        told = {"phase": phase.value, "attempt": job.attempt}
        job_events.add(connection, job.id, EventKind.PHASE, progress.message, moment, **told)
    # The first step of a job that was tried again says how far it really is; until then, it is as far as it was.
    is_new_start = progress.current_step is not None and job.run.current_step is None
    known = job.model_copy(update={"progress": 0}) if is_new_start else job
    job_changes.change(
        connection, known, moment, message=progress.message, progress=progress.percent, phase=phase, run=progress
    )


def _add_point(connection: sa.Connection, job: JobRecord, progress: Progress, moment: datetime) -> bool:
    """Add what a report tells of a step to the curves.

    Returns:
        Whether a report of a later step came first, as it can when the tracker was away and many reports wait.
    """
    step = _step_of(job, progress)
    if step is None:
        return False
    last = job_curves.last_step(connection, job.id, job.attempt)
    job_curves.add(connection, job.id, job.attempt, step, _epoch_of(job, progress), progress, moment)
    return last is not None and step < last


def _step_of(job: JobRecord, progress: Progress) -> int | None:
    """The step that a report tells of; an evaluation that names none is of the last one known."""
    if progress.current_step is not None or progress.eval_loss is None:
        return progress.current_step
    return job.run.current_step or 0


def _epoch_of(job: JobRecord, progress: Progress) -> int:
    return (job.run.current_epoch or 0) if progress.current_epoch is None else progress.current_epoch


def _tell_of_evaluation(connection: sa.Connection, job: JobRecord, progress: Progress, moment: datetime) -> None:
    job_events.add(
        connection,
        job.id,
        EventKind.EVALUATED,
        progress.message,
        moment,
        eval_loss=progress.eval_loss,
        **({} if progress.epoch_loss is None else {"train_loss": progress.epoch_loss}),
        epoch=_epoch_of(job, progress),
        step=_step_of(job, progress),
    )
