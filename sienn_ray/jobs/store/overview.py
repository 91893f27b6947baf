"""Numbers over all jobs and datasets."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.jobs.schema import JobRecord, JobStatus, Overview
from sienn_ray.jobs.store.tables import datasets, deleted_ends, jobs

_DAY = timedelta(days=1)


def read(connection: sa.Connection, now: datetime, owner: str | None = None) -> Overview:
    """The numbers as they are now, over all or over what one owner has."""
    counts = sa.select(jobs.c.status, sa.func.count()).where(*_of_owner(jobs, owner)).group_by(jobs.c.status)
    known = {JobStatus(status): number for status, number in connection.execute(counts).all()}
    sizes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(datasets.c.size_bytes), 0)).select_from(datasets)
    num_datasets, size_bytes = connection.execute(sizes.where(*_of_owner(datasets, owner))).one()
    return Overview(
        num_jobs={status: known.get(status, 0) for status in JobStatus},
        num_completed_24h=_num_ended_since(connection, JobStatus.COMPLETED, now - _DAY, owner),
        num_failed_24h=_num_ended_since(connection, JobStatus.FAILED, now - _DAY, owner),
        avg_training_s=_avg_training_s(connection, owner),
        num_datasets=num_datasets,
        datasets_size_bytes=int(size_bytes),
    )


def remember_end(connection: sa.Connection, job: JobRecord, now: datetime) -> None:
    """Have a job that is being deleted count among those that ended within a day, until that is over."""
    connection.execute(sa.delete(deleted_ends).where(deleted_ends.c.ended_at < now - _DAY))
    if job.ended_at is not None and job.ended_at >= now - _DAY:
        values = {"status": job.status.value, "ended_at": job.ended_at, "owner": job.owner}
        connection.execute(sa.insert(deleted_ends).values(**values))


def _of_owner(table: sa.Table, owner: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if owner is None else [table.c.owner == owner]


def _num_ended_since(connection: sa.Connection, status: JobStatus, moment: datetime, owner: str | None) -> int:
    counts = [
        sa.select(sa.func.count()).where(
            table.c.status == status.value, table.c.ended_at >= moment, *_of_owner(table, owner)
        )
        for table in (jobs, deleted_ends)
    ]
    return sum(connection.scalar(count) or 0 for count in counts)


def _avg_training_s(connection: sa.Connection, owner: str | None) -> float | None:
    """SQLite counts whole seconds here; over many jobs that evens out."""
    duration_s = sa.extract("epoch", jobs.c.ended_at) - sa.extract("epoch", jobs.c.started_at)
    is_counted = (jobs.c.status == JobStatus.COMPLETED.value, *_of_owner(jobs, owner))
    mean = connection.scalar(sa.select(sa.func.avg(duration_s)).where(*is_counted))
    return None if mean is None else float(mean)
