"""Entry of jobs: once, whatever is repeated, and only while there is room in the queue."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from sienn_ray.errors import ConflictError, TooManyRequestsError
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.starts import check_completed
from sienn_ray.jobs.store import job_changes, queue
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.records import read_dataset, read_job, to_job
from sienn_ray.jobs.store.tables import jobs

# A place in the queue comes free when a fine-tune starts.
_QUEUE_RETRY_AFTER_S = 60
# Jobs that a record goes back to, the nearest ones.
MAX_LINEAGE = 100


def enter(
    connection: sa.Connection, record: JobRecord, max_pending: int | None, quotas: QuotaChecks, moment: datetime
) -> JobRecord:
    """Add a job, or give the one that has its id or idempotency key.

    Raises:
        NotFoundError: There is no such dataset, or no such job to start from.
        JobStateError: The job to start from isn't completed.
        ConflictError: The idempotency key came with another request before.
        TooManyRequestsError: So many wait already, or as many of its owner as may.
        QuotaExceededError: Its owner's storage is full.
    """
    known = _known(connection, record)
    if known is not None:
        return known
    record = _with_versions(connection, record)
    if record.validation_dataset_id is not None:
        read_dataset(connection, record.validation_dataset_id)
    if record.from_job is not None:
        record = _started_from(connection, record, record.from_job)
    if record.status is JobStatus.PENDING:
        quotas.check_job(connection, record.owner)
        if max_pending is not None:
            _check_room(connection, max_pending)
    return job_changes.add(connection, record, moment)


def _started_from(connection: sa.Connection, record: JobRecord, from_job: str) -> JobRecord:
    """Note which adapter a job starts from, and the jobs that this one goes back to.

    Raises:
        JobStateError: That job has none.
    """
    parent = read_job(connection, from_job)
    check_completed(parent)
    return record.model_copy(
        update={"start_key": parent.adapter_key, "lineage": (*parent.lineage, parent.id)[-MAX_LINEAGE:]}
    )


def _with_versions(connection: sa.Connection, record: JobRecord) -> JobRecord:
    """The same job with the versions of the datasets that it trains on.

    Raises:
        NotFoundError: There is no such dataset.
    """
    versions = (read_dataset(connection, dataset.dataset_id).version for dataset in record.trained_on)
    pinned = zip(record.trained_on, versions, strict=True)
    datasets = tuple(dataset.model_copy(update={"version": version}) for dataset, version in pinned)
    return record if datasets == record.trained_on else record.model_copy(update={"datasets": datasets})


def _known(connection: sa.Connection, record: JobRecord) -> JobRecord | None:
    """The job that has this id or idempotency key already.

    Raises:
        ConflictError: The key came with another request.
    """
    same_id = first(connection, jobs.c.id == record.id)
    if same_id is not None or record.idempotency_key is None:
        return same_id
    same_key = of_key(connection, record.idempotency_key, record.owner)
    if same_key is not None and same_key.request_hash != record.request_hash:
        raise ConflictError(
            f"Idempotency-Key '{record.idempotency_key}' came with another request before, which made job "
            f"{same_key.id}; send a new key with a new request"
        )
    return same_key


def of_key(connection: sa.Connection, idempotency_key: str, owner: str) -> JobRecord | None:
    """The job of an owner that came with an idempotency key, if any."""
    return first(connection, (jobs.c.idempotency_key == idempotency_key) & (jobs.c.owner == owner))


def first(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> JobRecord | None:
    """The job that fits a condition, if any."""
    row = connection.execute(sa.select(jobs).where(condition)).mappings().first()
    return None if row is None else to_job(row)


def _check_room(connection: sa.Connection, max_pending: int) -> None:
    num_waiting = queue.length(connection)
    if num_waiting >= max_pending:
        raise TooManyRequestsError(
            f"{num_waiting} jobs wait already and SIENN_MAX_PENDING_JOBS is {max_pending}; "
            "try again when some of them have started, or cancel some",
            retry_after_s=_QUEUE_RETRY_AFTER_S,
        )
