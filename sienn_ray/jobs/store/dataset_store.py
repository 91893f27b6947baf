"""Datasets in the job database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from sienn_ray.access.quotas import Quotas
from sienn_ray.errors import ConflictError
from sienn_ray.jobs.deletion_schema import DeletionKind
from sienn_ray.jobs.schema import DatasetRecord, Page, utc_now
from sienn_ray.jobs.store import dataset_versions, job_pages, tombstones
from sienn_ray.jobs.store.cursors import read_page
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.records import dataset_columns, read_dataset, to_dataset
from sienn_ray.jobs.store.tables import datasets, jobs

_MAX_NAMED = 3


class DatasetStore:
    """Reads and writes datasets; every method is one transaction.

    Args:
        database: Where they are kept.
        clock: The time.
        quotas: Checks the quotas of owners.
    """

    def __init__(
        self, database: Database, clock: Callable[[], datetime] = utc_now, quotas: QuotaChecks | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._quotas = quotas or QuotaChecks(Quotas())

    def add(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset, and say if its bytes were there before; adding the same id again changes nothing.

        A version of another one gets the next number.

        Raises:
            QuotaExceededError: Its owner would store too much.
            NotFoundError: The dataset that it is a version of isn't there any more.
            ConflictError: Another version has come after the one whose rows it goes on from, or there are too many.
        """
        with self._database.writing() as connection:
            known = connection.execute(sa.select(datasets).where(datasets.c.id == record.id)).mappings().first()
            if known is not None:
                return to_dataset(known)
            self._quotas.check_dataset(connection, record.owner, record.size_bytes)
            is_same = (datasets.c.sha256 == record.sha256) & (datasets.c.owner == record.owner)
            same_bytes = sa.select(datasets.c.id).where(is_same).order_by(datasets.c.seq)
            added = record.model_copy(
                update={
                    "duplicate_of": connection.scalar(same_bytes.limit(1)),
                    "version": dataset_versions.next_number(connection, record),
                }
            )
            connection.execute(sa.insert(datasets).values(**dataset_columns(added)))
            return added

    def get(self, dataset_id: str) -> DatasetRecord:
        """One dataset.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._database.reading() as connection:
            return read_dataset(connection, dataset_id)

    def versions(self, dataset_id: str) -> list[DatasetRecord]:
        """All versions of the dataset that an id is a version of, the first one first.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._database.reading() as connection:
            return dataset_versions.read(connection, read_dataset(connection, dataset_id).first_version_id)

    def page(
        self, owner: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[DatasetRecord]:
        """A page of all datasets, or of those of one owner, the newest first; without a limit, all that follow.

        Raises:
            InvalidInputError: The cursor isn't one.
        """
        query = sa.select(datasets)
        if owner is not None:
            query = query.where(datasets.c.owner == owner)
        with self._database.reading() as connection:
            rows, count, following = read_page(connection, query, datasets.c.seq, limit=limit, cursor=cursor)
        return Page([to_dataset(row) for row in rows], count, following)

    def delete(self, dataset_id: str) -> DatasetRecord:
        """Forget a dataset, and have its files deleted; with the first version go all others.

        Raises:
            NotFoundError: There is none with this id.
            ConflictError: A job trained on it or evaluates on it.
        """
        with self._database.writing() as connection:
            record = read_dataset(connection, dataset_id)
            versions = [record] if record.version_of else dataset_versions.read(connection, dataset_id)
            for version in versions:
                _check_unused(connection, version.id)
            for version in versions:
                tombstones.add(connection, DeletionKind.DATASET, version.id, self._clock())
                connection.execute(sa.delete(datasets).where(datasets.c.id == version.id))
        return record


def _check_unused(connection: sa.Connection, dataset_id: str) -> None:
    of_dataset = job_pages.of_dataset(dataset_id)
    if number := connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(of_dataset)):
        newest = sa.select(jobs.c.id).where(of_dataset).order_by(jobs.c.seq.desc()).limit(_MAX_NAMED)
        raise _in_use(dataset_id, number, connection.scalars(newest).all())


def _in_use(dataset_id: str, number: int, newest: Sequence[str]) -> ConflictError:
    used = "1 job uses" if number == 1 else f"{number} jobs use"
    named = ", ".join(newest) + (", ..." if number > len(newest) else "")
    return ConflictError(
        f"{used} dataset {dataset_id}: {named}; delete them first, GET /api/jobs?dataset_id={dataset_id} lists them"
    )
