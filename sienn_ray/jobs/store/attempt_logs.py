"""Logs of attempts that are yet to be kept: noted when an attempt starts, settled once its log is in storage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import attempt_logs, jobs

_COLUMNS = [column for column in attempt_logs.columns if column.name != "seq"]
_FIRST_RETRY_S, _LAST_RETRY_S = 2.0, 600.0


class AttemptLog(BaseModel):
    """The log of one attempt, which Ray has."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int
    submission_id: str
    num_tries: int = 0
    due_at: datetime


def expect(connection: sa.Connection, job_id: str, attempt: int, submission_id: str, moment: datetime) -> None:
    """Have the log of an attempt kept once that has ended; a repeat changes nothing."""
    same = (attempt_logs.c.job_id == job_id, attempt_logs.c.attempt == attempt)
    if connection.scalar(sa.select(attempt_logs.c.seq).where(*same)) is None:
        values = {"job_id": job_id, "attempt": attempt, "submission_id": submission_id, "num_tries": 0}
        connection.execute(sa.insert(attempt_logs).values(**values, due_at=moment))


def forget(connection: sa.Connection, job_id: str) -> None:
    """Have no log of a job kept any more, since the job is deleted."""
    connection.execute(sa.delete(attempt_logs).where(attempt_logs.c.job_id == job_id))


class AttemptLogStore:
    """Reads and settles what is noted; every method is one transaction.

    Args:
        database: Where it is kept.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def due(self) -> list[AttemptLog]:
        """Logs to keep now: of attempts that run no more, as far as the database knows."""
        runs = sa.and_(jobs.c.status == JobStatus.RUNNING.value, jobs.c.attempt == attempt_logs.c.attempt)
        query = (
            sa.select(*_COLUMNS)
            .join(jobs, jobs.c.id == attempt_logs.c.job_id)
            .where(attempt_logs.c.due_at <= self._clock(), sa.not_(runs))
            .order_by(attempt_logs.c.seq)
        )
        with self._database.reading() as connection:
            return [AttemptLog.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def finish(self, log: AttemptLog) -> bool:
        """Settle a log, since it is kept, or can't be had; returns whether its job is there still."""
        with self._database.writing() as connection:
            return connection.execute(sa.delete(attempt_logs).where(*_same(log))).rowcount > 0

    def try_later(self, log: AttemptLog) -> None:
        """Have a log tried again, with exponential back-off."""
        wait_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2 ** min(log.num_tries, 32))
        changes = {"num_tries": log.num_tries + 1, "due_at": self._clock() + timedelta(seconds=wait_s)}
        with self._database.writing() as connection:
            connection.execute(sa.update(attempt_logs).where(*_same(log)).values(**changes))


def _same(log: AttemptLog) -> tuple[sa.ColumnElement[bool], ...]:
    return attempt_logs.c.job_id == log.job_id, attempt_logs.c.attempt == log.attempt
