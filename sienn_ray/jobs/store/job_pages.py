"""Jobs that fit a query, a page at a time."""

from __future__ import annotations

import sqlalchemy as sa

from sienn_ray.jobs.schema import JobPage, JobQuery, JobStatus
from sienn_ray.jobs.store import queue
from sienn_ray.jobs.store.cursors import cursor_of, seq_of
from sienn_ray.jobs.store.records import to_job
from sienn_ray.jobs.store.tables import job_datasets, job_labels, jobs


def read(connection: sa.Connection, query: JobQuery, max_running: int | None = None) -> JobPage:
    """One page, the newest job first; waiting jobs say where they stand in the queue.

    Args:
        connection: A transaction.
        query: Which jobs.
        max_running: See `queue.places`.

    Raises:
        InvalidInputError: The cursor isn't one.
    """
    conditions = _conditions(query)
    before = [] if query.cursor is None else [jobs.c.seq < seq_of(query.cursor)]
    # Only numbers are sorted and skipped, since rows are large.
    seqs = sa.select(jobs.c.seq).where(*conditions, *before).order_by(jobs.c.seq.desc())
    if query.limit is not None:
        seqs = seqs.limit(query.limit + 1)
    page = sa.select(jobs).where(jobs.c.seq.in_(seqs.scalar_subquery())).order_by(jobs.c.seq.desc())
    found = connection.execute(page).mappings().all()
    rows = found[: query.limit]
    waiting = [row["seq"] for row in rows if row["status"] == JobStatus.PENDING.value]
    places = queue.places(connection, waiting, max_running)
    return JobPage(
        jobs=[queue.with_place(to_job(row), places.get(row["seq"])) for row in rows],
        count=connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(*conditions)) or 0,
        next_cursor=cursor_of(rows[-1]["seq"]) if rows and len(found) > len(rows) else None,
    )


def _conditions(query: JobQuery) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if query.status is not None:
        conditions.append(jobs.c.status == query.status.value)
    if query.dataset_id is not None:
        conditions.append(of_dataset(query.dataset_id))
    if query.base_model is not None:
        conditions.append(jobs.c.base_model == query.base_model)
    if query.owner is not None:
        conditions.append(jobs.c.owner == query.owner)
    if query.name is not None:
        conditions.append(jobs.c.name == query.name)
    return [*conditions, *(_has_label(key, value) for key, value in query.labels.items())]


def of_dataset(dataset_id: str) -> sa.ColumnElement[bool]:
    """Jobs that train on a dataset, or evaluate on it."""
    mixed = sa.select(job_datasets.c.job_id).where(job_datasets.c.dataset_id == dataset_id)
    return sa.or_(jobs.c.dataset_id == dataset_id, jobs.c.validation_dataset_id == dataset_id, jobs.c.id.in_(mixed))


def _has_label(key: str, value: str) -> sa.ColumnElement[bool]:
    # Not EXISTS: databases then ask once for each job instead of reading the few rows of the label.
    return jobs.c.id.in_(sa.select(job_labels.c.job_id).where(job_labels.c.key == key, job_labels.c.value == value))
