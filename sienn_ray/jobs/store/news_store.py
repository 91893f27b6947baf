"""News of jobs in the job database: what was written behind a place."""

from __future__ import annotations

import sqlalchemy as sa

from sienn_ray.jobs.news_schema import EventNews, News, NewsCursor, NewsQuery, PointNews
from sienn_ray.jobs.schema import JobEvent, JobRecord, MetricPoint
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.records import to_job
from sienn_ray.jobs.store.tables import job_events, job_metric_points, jobs

# In one answer; what is left comes with the next one.
MAX_EVENTS, MAX_POINTS = 1000, 5000


class NewsStore:
    """Reads news.

    Args:
        database: The job database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, query: NewsQuery) -> News:
        """Return what was written behind a place, or that place where none is named."""
        with self._database.reading() as connection:
            if query.after is None:
                return News(cursor=_end(connection))
            return _since(connection, query, query.after)


def _since(connection: sa.Connection, query: NewsQuery, after: NewsCursor) -> News:
    # Jobs first: one that has ended is told of together with all that came before its end. What changes between two of
    # these queries comes with the next answer, since each has a place of its own.
    records = _jobs(connection, query)
    points = _points(connection, query, after)
    events = _events(connection, query, after)
    is_there = sa.select(jobs.c.id).where(jobs.c.id.in_(query.job_ids))
    there = set(connection.scalars(is_there)) if query.job_ids else set()
    cursor = after.behind(seq=events[-1].event.seq if events else 0)
    return News(
        events=events,
        points=points,
        jobs=records,
        gone=tuple(job_id for job_id in query.job_ids if job_id not in there),
        cursor=cursor.behind(point_at=points[-1].point.created_at if points else None),
        changed_at=max((job.updated_at for job in records), default=None),
    )


def _jobs(connection: sa.Connection, query: NewsQuery) -> tuple[JobRecord, ...]:
    if not query.job_ids:
        return ()
    conditions: list[sa.ColumnElement[bool]] = [jobs.c.id.in_(query.job_ids)]
    if query.changed_after is not None:
        conditions.append(jobs.c.updated_at > query.changed_after)
    return tuple(to_job(row) for row in connection.execute(sa.select(jobs).where(*conditions)).mappings())


def _events(connection: sa.Connection, query: NewsQuery, after: NewsCursor) -> tuple[EventNews, ...]:
    conditions: list[sa.ColumnElement[bool]] = [job_events.c.seq > after.seq]
    if query.only_watched:
        conditions.append(job_events.c.job_id.in_(query.job_ids))
    if query.owner is not None:
        conditions.append(jobs.c.owner == query.owner)
    found = (
        sa.select(job_events, jobs.c.owner)
        .join(jobs, jobs.c.id == job_events.c.job_id)
        .where(*conditions)
        .order_by(job_events.c.seq)
        .limit(MAX_EVENTS)
    )
    return tuple(
        EventNews(row["job_id"], row["owner"], JobEvent.model_validate(dict(row)))
        for row in connection.execute(found).mappings()
    )


def _points(connection: sa.Connection, query: NewsQuery, after: NewsCursor) -> tuple[PointNews, ...]:
    if not query.job_ids:
        return ()
    points = job_metric_points
    found = (
        sa.select(points)
        .where(points.c.job_id.in_(query.job_ids), points.c.created_at > after.point_at)
        .order_by(points.c.created_at, points.c.step)
        .limit(MAX_POINTS)
    )
    return tuple(
        PointNews(row["job_id"], MetricPoint.model_validate(dict(row))) for row in connection.execute(found).mappings()
    )


def _end(connection: sa.Connection) -> NewsCursor:
    seq = connection.scalar(sa.select(sa.func.max(job_events.c.seq))) or 0
    return NewsCursor(seq).behind(point_at=connection.scalar(sa.select(sa.func.max(job_metric_points.c.created_at))))
