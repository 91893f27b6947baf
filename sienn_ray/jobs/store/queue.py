"""The queue: waiting jobs in order of arrival. One that lost its run, or is tried again, keeps its place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import sqlalchemy as sa

from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.tables import jobs

_IS_WAITING = jobs.c.status == JobStatus.PENDING.value


def length(connection: sa.Connection) -> int:
    """Jobs that wait."""
    return connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(_IS_WAITING)) or 0


def places(connection: sa.Connection, seqs: Sequence[int]) -> dict[int, int]:
    """1-based places of those of the given jobs that wait; only numbers are read, however long the queue is.

    Args:
        connection: A transaction.
        seqs: The jobs by their `seq`.
    """
    if not seqs:
        return {}
    first, last = min(seqs), max(seqs)
    ahead = connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(_IS_WAITING, jobs.c.seq < first)) or 0
    among = sa.select(jobs.c.seq).where(_IS_WAITING, jobs.c.seq.between(first, last)).order_by(jobs.c.seq)
    waiting = connection.scalars(among).all()
    return {
        seq: ahead + place + 1
        for seq in seqs
        if (place := bisect_left(waiting, seq)) < len(waiting) and waiting[place] == seq
    }


def with_place(job: JobRecord, place: int | None) -> JobRecord:
    """A job that says where it stands in the queue, if it does."""
    return job if place is None else job.model_copy(update={"queue_position": place})
