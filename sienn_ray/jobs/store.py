"""The job database: SQLite by default, PostgreSQL by its URL. The only place with SQL."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.errors import NotFoundError
from sienn_ray.jobs.schema import DatasetRecord, JobRecord, JobStatus, check_transition, utc_now

_MIGRATIONS = Path(__file__).parent / "migrations"


class _UtcDateTime(sa.TypeDecorator[datetime]):
    """A point in time; SQLite keeps no zone, so it is put back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


_metadata = sa.MetaData()
# The migrations own the tables; these describe them for queries. `seq` is the order of arrival.
_datasets = sa.Table(
    "datasets",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("filename", sa.Text),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("sha256", sa.String),
    sa.Column("format", sa.String),
    sa.Column("num_rows", sa.BigInteger),
    sa.Column("columns", sa.JSON),
    sa.Column("preview", sa.JSON),
    sa.Column("status", sa.String),
    sa.Column("created_at", _UtcDateTime),
)
_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("dataset_id", sa.String),
    sa.Column("config", sa.JSON),
    sa.Column("status", sa.String),
    sa.Column("progress", sa.Integer),
    sa.Column("message", sa.Text),
    sa.Column("failure_reason", sa.String),
    sa.Column("attempt", sa.Integer),
    sa.Column("submission_id", sa.String),
    sa.Column("facts", sa.JSON),
    sa.Column("created_at", _UtcDateTime),
    sa.Column("updated_at", _UtcDateTime),
)


def _create_engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, poolclass=NullPool)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


class Store:
    """Reads and writes records; every method is one transaction, safe to call from several threads.

    Args:
        url: SQLAlchemy URL. Migrations run here, so a new database is ready to use.
    """

    def __init__(self, url: str) -> None:
        self._engine = _create_engine(url)
        # A read-check-write must not interleave with another; the tracker is the only process that writes.
        self._write_lock = threading.Lock()
        self._migrate()

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset; adding the same id again changes nothing."""
        self._add(_datasets, record)
        return self.dataset(record.id)

    def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job; adding the same id again changes nothing.

        Raises:
            NotFoundError: There is no such dataset.
        """
        self.dataset(record.dataset_id)
        self._add(_jobs, record)
        return self.job(record.id)

    def _add(self, table: sa.Table, record: DatasetRecord | JobRecord) -> None:
        values = _to_columns(record)
        with self._write_lock, self._engine.begin() as connection:
            known = connection.scalar(sa.select(table.c.id).where(table.c.id == record.id))
            if known is None:
                connection.execute(sa.insert(table).values(**values))

    def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_datasets).where(_datasets.c.id == dataset_id)).mappings().first()
        if row is None:
            raise NotFoundError(f"Dataset {dataset_id} not found")
        return _to_dataset(row)

    def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_datasets).order_by(_datasets.c.seq.desc())).mappings().all()
        return [_to_dataset(row) for row in rows]

    def job(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_jobs).where(_jobs.c.id == job_id)).mappings().first()
        if row is None:
            raise NotFoundError(f"Job {job_id} not found")
        return _to_job(row)

    def jobs(self, status: JobStatus | None = None) -> list[JobRecord]:
        """Jobs, the newest first, all or those of one status."""
        query = sa.select(_jobs).order_by(_jobs.c.seq.desc())
        if status is not None:
            query = query.where(_jobs.c.status == status.value)
        with self._engine.connect() as connection:
            return [_to_job(row) for row in connection.execute(query).mappings().all()]

    def update_job(
        self, job_id: str, *, status: JobStatus | None = None, running_attempt: int | None = None, **changes: Any
    ) -> JobRecord:
        """Change a job's fields, and its status if the table of transitions allows that.

        `facts` are merged into those that stand, and `progress` doesn't go back.

        Args:
            job_id: The job's id.
            status: The new status.
            running_attempt: Change nothing unless this attempt is running.
            **changes: The new fields.

        Raises:
            NotFoundError: There is no such job.
            TransitionError: The status change isn't allowed; nothing is written then.
        """
        with self._write_lock, self._engine.begin() as connection:
            row = connection.execute(sa.select(_jobs).where(_jobs.c.id == job_id)).mappings().first()
            if row is None:
                raise NotFoundError(f"Job {job_id} not found")
            current = _to_job(row)
            if running_attempt is not None and not current.is_running(running_attempt):
                return current
            if status is not None:
                check_transition(job_id, current.status, status)
                changes["status"] = status
            if "progress" in changes:
                changes["progress"] = max(changes["progress"], current.progress)
            if "facts" in changes:
                changes["facts"] = {**current.facts, **changes["facts"]}
            updated = current.model_copy(update={**changes, "updated_at": utc_now()})
            connection.execute(sa.update(_jobs).where(_jobs.c.id == job_id).values(**_to_columns(updated)))
        return updated


def _to_columns(record: DatasetRecord | JobRecord) -> dict[str, Any]:
    moments = {name: getattr(record, name) for name in ("created_at", "updated_at") if hasattr(record, name)}
    return {**record.model_dump(mode="json"), **moments}


def _to_dataset(row: Mapping[Any, Any]) -> DatasetRecord:
    return DatasetRecord.model_validate({key: value for key, value in row.items() if key != "seq"})


def _to_job(row: Mapping[Any, Any]) -> JobRecord:
    return JobRecord.model_validate({key: value for key, value in row.items() if key != "seq"})
