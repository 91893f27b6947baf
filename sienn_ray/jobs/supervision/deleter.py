"""Deletes the files of what users have deleted, with retries and back-off, through restarts and outages of storage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from sienn_ray.errors import first_line
from sienn_ray.jobs.deletion_schema import Deletion, DeletionKind
from sienn_ray.jobs.store.deletion_store import DeletionStore
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)


class Deleter:
    """One `step` works off the tombstones that are due; each goes once its files are gone.

    Args:
        store: The tombstones in the database.
        storage: Where the files are.
        active_exports: Ids of the exports that have a run, which would write its files again.
    """

    def __init__(
        self, store: DeletionStore, storage: Storage, active_exports: Callable[[], Collection[str]] = frozenset
    ) -> None:
        self._store = store
        self._storage = storage
        self._active_exports = active_exports
        self._waits_for_runs = False

    def step(self) -> None:
        """Delete what can be deleted; what can't holds up nothing else."""
        self._waits_for_runs = False
        for deletion in self._store.due():
            if self._must_wait(deletion):
                self._waits_for_runs = True
            else:
                self._carry_out(deletion)

    def needs_close_look(self) -> bool:
        """Return whether a run is about to end, and its files go then."""
        return self._waits_for_runs

    def _must_wait(self, deletion: Deletion) -> bool:
        if deletion.kind is DeletionKind.EXPORT:
            return deletion.id in self._active_exports()
        return deletion.kind is DeletionKind.JOB and self._store.has_exports(deletion.id)

    def _carry_out(self, deletion: Deletion) -> None:
        try:
            for key in deletion.keys:
                self._storage.delete(key)
        except Exception as error:  # stores raise what they like
            words = f"{type(error).__name__}: {first_line(error)}"
            logger.warning("files of %s %s can't be deleted yet (%s)", deletion.kind, deletion.id, words)
            self._store.note_failure(deletion, words)
        else:
            logger.info("files of %s %s are deleted", deletion.kind, deletion.id)
            self._store.finish(deletion)
