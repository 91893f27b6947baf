"""Records and the rows that they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sienn_ray.jobs import job_facts
from sienn_ray.jobs.ids import check_id, not_found
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.jobs.store import tables

_KEPT_AS_FACTS = frozenset(
    {"phase", "pause_requested_at", "run", "summary", "other_facts", "queue_position", "warnings"}
)


def read_dataset(connection: sa.Connection, dataset_id: str) -> DatasetRecord:
    """One dataset.

    Raises:
        NotFoundError: There is none with this id.
    """
    check_id("Dataset", dataset_id)
    query = sa.select(tables.datasets).where(tables.datasets.c.id == dataset_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise not_found("Dataset", dataset_id)
    return to_dataset(row)


def read_job(connection: sa.Connection, job_id: str) -> JobRecord:
    """One job.

    Raises:
        NotFoundError: There is none with this id.
    """
    check_id("Job", job_id)
    row = connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == job_id)).mappings().first()
    if row is None:
        raise not_found("Job", job_id)
    return to_job(row)


def write_job(connection: sa.Connection, record: JobRecord) -> None:
    """Write all fields of a job that is there."""
    connection.execute(sa.update(tables.jobs).where(tables.jobs.c.id == record.id).values(**job_columns(record)))


def insert_job(connection: sa.Connection, record: JobRecord) -> None:
    """Add a job, and its labels and the datasets of its mixture to be searched for."""
    connection.execute(sa.insert(tables.jobs).values(**job_columns(record)))
    labels = {tables.safe_text(key): value for key, value in record.labels.items()}
    if labels:
        rows = [{"job_id": record.id, "key": key, "value": value} for key, value in labels.items()]
        connection.execute(sa.insert(tables.job_labels), rows)
    if record.is_mixture:
        mixed = [{"job_id": record.id, "dataset_id": dataset.dataset_id} for dataset in record.trained_on]
        connection.execute(sa.insert(tables.job_datasets), mixed)


def job_columns(record: JobRecord) -> dict[str, Any]:
    """A job's values by column."""
    plain = _columns(record, without=_KEPT_AS_FACTS)
    adapter_bytes = 0 if record.summary is None else record.summary.adapter_size_bytes
    sought = {"base_model": record.config.base_model, "adapter_bytes": adapter_bytes}
    return {**plain, "facts": job_facts.to_flat(record), **sought}


def dataset_columns(record: DatasetRecord) -> dict[str, Any]:
    """A dataset's values by column."""
    return _columns(record)


def _columns(record: DatasetRecord | JobRecord, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    moments = {name: value for name, value in record if isinstance(value, datetime) and name not in without}
    return {**record.model_dump(mode="json", exclude=set(without)), **moments}


def to_dataset(row: Mapping[Any, Any]) -> DatasetRecord:
    """The dataset that a row holds."""
    return DatasetRecord.model_validate({key: row[key] for key in row if key not in {"seq", "last_version"}})


def to_job(row: Mapping[Any, Any]) -> JobRecord:
    """The job that a row holds."""
    fields = {key: value for key, value in row.items() if key not in {"seq", "base_model", "adapter_bytes", "facts"}}
    return JobRecord.model_validate({**fields, **job_facts.of_flat(row["facts"])})
