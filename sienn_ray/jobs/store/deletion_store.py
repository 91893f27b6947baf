"""Deletions in the job database that are yet to be carried out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.jobs.deletion_schema import Deletion, DeletionKind
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import deletions

_COLUMNS = [column for column in deletions.columns if column.name != "seq"]
# Exports come first: their job's folder has theirs in it.
_ORDER = (sa.case((deletions.c.kind == DeletionKind.EXPORT.value, 0), else_=1), deletions.c.seq)
_FIRST_RETRY_S, _LAST_RETRY_S = 2.0, 600.0
_MAX_ERROR_CHARS = 500


class DeletionStore:
    """Reads and settles tombstones; every method is one transaction.

    Args:
        database: Where they are kept.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def due(self) -> list[Deletion]:
        """Deletions to carry out now, exports before their jobs."""
        query = sa.select(*_COLUMNS).where(deletions.c.due_at <= self._clock()).order_by(*_ORDER)
        with self._database.reading() as connection:
            return [Deletion.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def has_exports(self, job_id: str) -> bool:
        """Return whether files of a job's exports are yet to be deleted."""
        query = sa.select(deletions.c.seq).where(deletions.c.job_id == job_id).limit(1)
        with self._database.reading() as connection:
            return connection.scalar(query) is not None

    def finish(self, deletion: Deletion) -> None:
        """Take a tombstone away, since the files are gone."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(deletions).where(*_same(deletion)))

    def note_failure(self, deletion: Deletion, words: str) -> None:
        """Have a deletion tried again later, with exponential back-off."""
        wait_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2 ** min(deletion.num_failures, 32))
        changes = {
            "num_failures": deletion.num_failures + 1,
            "due_at": self._clock() + timedelta(seconds=wait_s),
            "error": words[:_MAX_ERROR_CHARS],
        }
        with self._database.writing() as connection:
            connection.execute(sa.update(deletions).where(*_same(deletion)).values(**changes))


def _same(deletion: Deletion) -> tuple[sa.ColumnElement[bool], ...]:
    return deletions.c.kind == deletion.kind.value, deletions.c.id == deletion.id
