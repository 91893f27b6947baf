"""Versions of datasets: records of their own, which the id of the first one holds together."""

from __future__ import annotations

import sqlalchemy as sa

from sienn_ray.errors import ConflictError
from sienn_ray.jobs.ids import not_found
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.jobs.store.records import to_dataset
from sienn_ray.jobs.store.tables import datasets

# A list of all of them is one answer.
MAX_VERSIONS = 1000


def read(connection: sa.Connection, first_id: str) -> list[DatasetRecord]:
    """All versions of a dataset, the first one first."""
    # The first one is found by its own index, the others by theirs.
    first = sa.select(datasets).where(datasets.c.id == first_id)
    others = sa.select(datasets).where(datasets.c.version_of == first_id).order_by(datasets.c.version)
    return [to_dataset(row) for query in (first, others) for row in connection.execute(query).mappings()]


def next_number(connection: sa.Connection, record: DatasetRecord) -> int:
    """Give a new version its number, which no other one ever gets; 1 where the record is of no other's version.

    Raises:
        NotFoundError: The dataset that it is a version of isn't there any more.
        ConflictError: Another version has come after the one that it goes on from or names, or there are too many.
    """
    if record.version_of is None:
        return 1
    versions = read(connection, record.version_of)
    if not versions or versions[0].first_version_id != versions[0].id or versions[0].owner != record.owner:
        raise not_found("Dataset", record.version_of)
    if record.appended_to is not None and versions[-1].id != record.appended_to:
        raise ConflictError(
            f"version {versions[-1].version} of dataset {record.version_of} was made meanwhile; append the rows again"
        )
    if record.base_version is not None and versions[-1].version != record.base_version:
        raise ConflictError(
            f"version {versions[-1].version} is the newest of dataset {record.version_of}, not {record.base_version}; "
            "look at it, and name it as base_version"
        )
    if len(versions) >= MAX_VERSIONS:
        raise ConflictError(
            f"dataset {record.version_of} has {len(versions)} versions, as many as it may have; delete some"
        )
    first = datasets.c.id == record.version_of
    number = (connection.scalar(sa.select(datasets.c.last_version).where(first)) or 1) + 1
    connection.execute(sa.update(datasets).where(first).values(last_version=number))
    return number
