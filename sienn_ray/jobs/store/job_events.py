"""Events of a job, for its owner to read; bounded, however long the job goes on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from sienn_ray.jobs.plain_text import one_line
from sienn_ray.jobs.schema import JobEvent
from sienn_ray.jobs.store.tables import job_events

MAX_EVENTS = 1000
_MAX_SEQ = 2**63 - 1


class EventKind(StrEnum):
    """Kinds of events."""

    CREATED = "created"
    QUEUED = "queued"
    STARTED = "started"
    PHASE = "phase"
    EVALUATED = "evaluated"
    EPOCH = "epoch"
    WARNING = "warning"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    PAUSED = "paused"
    RESUMED = "resumed"


# They go first when a job has too many events.
_OF_PASSING_INTEREST = (EventKind.PHASE, EventKind.EVALUATED, EventKind.EPOCH)


def add(
    connection: sa.Connection,
    job_id: str,
    kind: EventKind,
    message: str,
    moment: datetime,
    **data: Any,
) -> None:
    """Write an event down, in the transaction of what it tells."""
    words = one_line(message)
    values = {"job_id": job_id, "kind": kind.value, "message": words, "data": data, "created_at": moment}
    connection.execute(sa.insert(job_events).values(**values))
    _drop_surplus(connection, job_id)


def _drop_surplus(connection: sa.Connection, job_id: str) -> None:
    of_job = job_events.c.job_id == job_id
    surplus = (connection.scalar(sa.select(sa.func.count()).select_from(job_events).where(of_job)) or 0) - MAX_EVENTS
    if surplus <= 0:
        return
    is_lasting = sa.case((job_events.c.kind.in_(_OF_PASSING_INTEREST), 0), else_=1)
    dropped = sa.select(job_events.c.seq).where(of_job).order_by(is_lasting, job_events.c.seq).limit(surplus)
    connection.execute(sa.delete(job_events).where(job_events.c.seq.in_(dropped.scalar_subquery())))


def read(connection: sa.Connection, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """Events with a `seq` above `after`, the oldest first."""
    query = (
        sa.select(job_events)
        .where(job_events.c.job_id == job_id, job_events.c.seq > max(0, min(after, _MAX_SEQ)))
        .order_by(job_events.c.seq)
        .limit(max(0, min(limit, MAX_EVENTS)))
    )
    return [_to_event(row) for row in connection.execute(query).mappings()]


def _to_event(row: sa.RowMapping) -> JobEvent:
    return JobEvent.model_validate({key: value for key, value in row.items() if key != "job_id"})


def delete(connection: sa.Connection, job_id: str) -> None:
    """Forget a job's events."""
    connection.execute(sa.delete(job_events).where(job_events.c.job_id == job_id))
