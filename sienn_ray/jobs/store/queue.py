"""The queues of jobs and of exports: fair between owners, by priority and age within one.

Of the owners who wait, the one with the fewest runs is next; among equals, the one whose last start is the longest ago.
So owners take turns, however many things each of them has waiting. A start gives its owner the next number of a counter
(`queue_turns`), and whoever begins to wait gets the number that the counter stands at: nobody goes ahead of those who
waited before by having been away. This is start-time fair queueing (Goyal et al. 1996) with runs of equal cost.

Within an owner, a level of priority counts as much as `HEAD_START` of waiting, so that a job of low priority is passed
by those alone that come within that time. Urgent jobs, which only an admin may ask for, go ahead of all others.

A job that lost its run, or is tried again, keeps its age.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobPriority, JobRecord, JobStatus
from sienn_ray.jobs.store.tables import exports, jobs, owner_limits, queue_turns

HEAD_START = timedelta(days=1)

_IS_WAITING = jobs.c.status == JobStatus.PENDING.value
# A run that is being stopped still has its workers.
_IS_RUNNING = sa.or_(
    jobs.c.status == JobStatus.RUNNING.value,
    sa.and_(jobs.c.status == JobStatus.CANCELLED.value, jobs.c.ended_at.is_(None)),
)


class QueueKind(StrEnum):
    """Kinds of things that wait."""

    JOBS = "jobs"
    EXPORTS = "exports"


def length(connection: sa.Connection, owner: str | None = None) -> int:
    """Jobs that wait, of all owners or of one."""
    of_owner = [] if owner is None else [jobs.c.owner == owner]
    return connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(_IS_WAITING, *of_owner)) or 0


def lengths(connection: sa.Connection) -> dict[str, int]:
    """Jobs that wait, by owner."""
    counts = sa.select(jobs.c.owner, sa.func.count().label("number")).where(_IS_WAITING).group_by(jobs.c.owner)
    return {row.owner: row.number for row in connection.execute(counts)}


def num_running(connection: sa.Connection, owner: str) -> int:
    """Runs that an owner's jobs have, those that are being stopped included."""
    query = sa.select(sa.func.count()).select_from(jobs).where(_IS_RUNNING, jobs.c.owner == owner)
    return connection.scalar(query) or 0


def places(connection: sa.Connection, seqs: Sequence[int], max_running: int | None = None) -> dict[int, int]:
    """1-based places of those of the given jobs that wait, in the order in which they start if no other one comes.

    Args:
        connection: A transaction.
        seqs: The jobs by their `seq`.
        max_running: Runs that an owner may have at once, unless it has a bound of its own; None is any number.
    """
    if not seqs:
        return {}
    order = _order(QueueKind.JOBS)
    query = sa.select(order.c.seq, order.c.place).where(order.c.seq.in_(seqs))
    found = connection.execute(query, {"max_running": max_running, "without": []})
    return {row.seq: row.place for row in found}


def next_jobs(
    connection: sa.Connection, limit: int, max_running: int | None = None, without: Collection[str] = ()
) -> list[int]:
    """The jobs that are next to start, in this order, by their `seq`.

    Args:
        connection: A transaction.
        limit: Jobs at the most.
        max_running: Runs that an owner may have at once; None is any number.
        without: Ids of jobs that can't start at the moment.
    """
    return _next(connection, QueueKind.JOBS, limit, max_running, without)


def next_exports(connection: sa.Connection, limit: int, without: Collection[str] = ()) -> list[int]:
    """The exports that are next to start, as `next_jobs`."""
    return _next(connection, QueueKind.EXPORTS, limit, None, without)


def with_place(job: JobRecord, place: int | None) -> JobRecord:
    """A job that says where it stands in the queue, if it does."""
    return job if place is None else job.model_copy(update={"queue_position": place})


def note_start(connection: sa.Connection, kind: QueueKind, owner: str) -> None:
    """Note that an owner has had a turn, and comes behind others who wait with as few runs."""
    _set_turn(connection, kind, owner, _last_turn(connection, kind) + 1)


def note_wait(connection: sa.Connection, kind: QueueKind, owner: str) -> None:
    """Note that something of an owner is about to wait; one who had nothing comes behind those who waited before."""
    source, is_there = _of_owner(kind)
    if connection.execute(sa.select(sa.literal(1)).select_from(source).where(is_there(owner)).limit(1)).first() is None:
        _set_turn(connection, kind, owner, _last_turn(connection, kind))


def _of_owner(kind: QueueKind) -> tuple[sa.FromClause, Callable[[str], sa.ColumnElement[bool]]]:
    """Where things of a kind are, and the condition of those of an owner that wait or run."""
    if kind is QueueKind.JOBS:
        return jobs, lambda owner: sa.and_(jobs.c.owner == owner, sa.or_(_IS_WAITING, _IS_RUNNING))
    is_open = exports.c.status.in_([ExportStatus.PENDING.value, ExportStatus.RUNNING.value])
    return _EXPORTS_OF_JOBS, lambda owner: sa.and_(jobs.c.owner == owner, is_open)


def _last_turn(connection: sa.Connection, kind: QueueKind) -> int:
    return connection.scalar(sa.select(sa.func.max(queue_turns.c.turn)).where(queue_turns.c.kind == kind.value)) or 0


def _set_turn(connection: sa.Connection, kind: QueueKind, owner: str, turn: int) -> None:
    insert = sqlite.insert(queue_turns) if connection.dialect.name == "sqlite" else postgresql.insert(queue_turns)
    upsert = insert.on_conflict_do_update(index_elements=["kind", "owner"], set_={"turn": insert.excluded.turn})
    connection.execute(upsert, [{"kind": kind.value, "owner": owner, "turn": turn}])


def _next(
    connection: sa.Connection, kind: QueueKind, limit: int, max_running: int | None, without: Collection[str]
) -> list[int]:
    if limit <= 0:
        return []
    order = _order(kind)
    query = sa.select(order.c.seq).where(order.c.is_held_back == 0).order_by(order.c.place).limit(limit)
    return list(connection.scalars(query, {"max_running": max_running, "without": list(without)}))


@cache
def _order(kind: QueueKind) -> sa.Subquery:
    """All that wait, with `place`, and `is_held_back` of those beyond their owner's bound, who come last.

    It takes the parameters `max_running` and `without`. Only numbers and names are sorted, since rows are large.
    """
    without: sa.BindParameter[Any] = sa.bindparam("without", expanding=True)
    waiting, running = _jobs_that_wait(without) if kind is QueueKind.JOBS else _exports_that_wait(without)
    turns = sa.select(queue_turns.c.owner, queue_turns.c.turn).where(queue_turns.c.kind == kind.value).subquery()
    # Runs that the owner would have before this one, were nothing to end meanwhile.
    num_before = sa.func.coalesce(running.c.number, 0) + waiting.c.rank
    own_bound = owner_limits.c.max_running_jobs if kind is QueueKind.JOBS else sa.null()
    bound = sa.func.coalesce(own_bound, sa.bindparam("max_running", type_=sa.Integer))
    is_held_back = sa.case((num_before >= bound, 1), else_=0)  # never, where there is no bound
    keys = (
        is_held_back,
        waiting.c.is_urgent.desc(),
        num_before,
        # Owners who come to this many runs by starts from here on had their turns just before, in the order of these.
        waiting.c.rank,
        sa.func.coalesce(turns.c.turn, 0),
        waiting.c.head,
    )
    joined: sa.FromClause = waiting
    for each in (running, turns, owner_limits):
        joined = joined.outerjoin(each, each.c.owner == waiting.c.owner)
    place = sa.func.row_number().over(order_by=keys)
    columns = (waiting.c.seq, is_held_back.label("is_held_back"), place.label("place"))
    return sa.select(*columns).select_from(joined).subquery("queue_order")


def _ranked(
    seq: sa.ColumnElement[int], is_urgent: sa.ColumnElement[int], order: Sequence[sa.ColumnElement[Any]]
) -> tuple[sa.ColumnElement[Any], ...]:
    """Columns of what waits: its rank among its owner's, from 0, and the `seq` of the first of these."""
    rank = sa.func.row_number().over(partition_by=jobs.c.owner, order_by=order)
    head = sa.func.first_value(seq).over(partition_by=jobs.c.owner, order_by=order)
    return seq, jobs.c.owner, is_urgent.label("is_urgent"), (rank - 1).label("rank"), head.label("head")


def _jobs_that_wait(without: sa.BindParameter[Any]) -> tuple[sa.Subquery, sa.Subquery]:
    """Waiting jobs with their ranks among their owner's, and the numbers of runs by owner."""
    is_urgent = sa.case((jobs.c.priority >= JobPriority.URGENT.value, 1), else_=0)
    arrived_s = sa.extract("epoch", jobs.c.created_at) - jobs.c.priority * int(HEAD_START.total_seconds())
    columns = _ranked(jobs.c.seq, is_urgent, (is_urgent.desc(), arrived_s, jobs.c.seq))
    waiting = sa.select(*columns).where(_IS_WAITING, jobs.c.id.not_in(without)).subquery("waiting")
    counts = sa.select(jobs.c.owner, sa.func.count().label("number")).where(_IS_RUNNING).group_by(jobs.c.owner)
    return waiting, counts.subquery("running")


_EXPORTS_OF_JOBS = exports.join(jobs, jobs.c.id == exports.c.job_id)


def _exports_that_wait(without: sa.BindParameter[Any]) -> tuple[sa.Subquery, sa.Subquery]:
    """The same of exports, which have no priority."""
    columns = _ranked(exports.c.seq, sa.literal(0), (exports.c.seq,))
    is_waiting = exports.c.status == ExportStatus.PENDING.value
    waiting = sa.select(*columns).select_from(_EXPORTS_OF_JOBS).where(is_waiting, exports.c.id.not_in(without))
    is_running = exports.c.status == ExportStatus.RUNNING.value
    counts = sa.select(jobs.c.owner, sa.func.count().label("number")).select_from(_EXPORTS_OF_JOBS)
    return waiting.subquery("waiting"), counts.where(is_running).group_by(jobs.c.owner).subquery("running")
