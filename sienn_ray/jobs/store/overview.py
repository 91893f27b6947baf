"""Numbers over all jobs and datasets."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.jobs.schema import JobStatus, Overview
from sienn_ray.jobs.store.tables import datasets, jobs

_DAY = timedelta(days=1)


def read(connection: sa.Connection, now: datetime) -> Overview:
    """The numbers as they are now."""
    by_status = connection.execute(sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)).all()
    known = {JobStatus(status): number for status, number in by_status}
    num_datasets, size_bytes = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(datasets.c.size_bytes), 0)).select_from(datasets)
    ).one()
    return Overview(
        num_jobs={status: known.get(status, 0) for status in JobStatus},
        num_completed_24h=_num_ended_since(connection, JobStatus.COMPLETED, now - _DAY),
        num_failed_24h=_num_ended_since(connection, JobStatus.FAILED, now - _DAY),
        avg_training_s=_avg_training_s(connection),
        num_datasets=num_datasets,
        datasets_size_bytes=int(size_bytes),
    )


def _num_ended_since(connection: sa.Connection, status: JobStatus, moment: datetime) -> int:
    query = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.status == status.value, jobs.c.ended_at >= moment)
    return connection.scalar(query) or 0


def _avg_training_s(connection: sa.Connection) -> float | None:
    """SQLite counts whole seconds here; over many jobs that evens out."""
    duration_s = sa.extract("epoch", jobs.c.ended_at) - sa.extract("epoch", jobs.c.started_at)
    mean = connection.scalar(sa.select(sa.func.avg(duration_s)).where(jobs.c.status == JobStatus.COMPLETED.value))
    return None if mean is None else float(mean)
