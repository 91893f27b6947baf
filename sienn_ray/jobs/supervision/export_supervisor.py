"""Keeps exports moving: starts those that wait, notes how runs end, stops and clears away what isn't wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from sienn_ray.export.leftovers import unfinished
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.export_store import ExportStore
from sienn_ray.jobs.supervision.export_runs import ExportEnd, ExportRuns
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

_SWEEP_INTERVAL_S = 3600.0
_SWEPT_AGE = timedelta(hours=24)


class ExportSupervisor:
    """One `step` brings the database, the runs and storage in line.

    Runs end with the process that started them, so those that an earlier process has left are begun again.

    Args:
        store: The exports in the database.
        runs: Their runs.
        storage: Where they are.
        need_bytes: Memory that a run of an export needs.
        max_running: Runs at once.
        max_attempts: Runs of one export, the first included, of which all were lost.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        store: ExportStore,
        runs: ExportRuns,
        storage: Storage,
        *,
        need_bytes: Callable[[ExportRecord], int],
        max_running: int,
        max_attempts: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._runs = runs
        self._storage = storage
        self._need_bytes = need_bytes
        self._max_running = max_running
        self._max_attempts = max_attempts
        self._clock_s = clock_s
        self._swept_at = float("-inf")

    def step(self) -> None:
        """Note ends, stop what isn't wanted, requeue what was lost, start what waits, delete what has expired."""
        for end in self._runs.ends():
            self._settle(end)
        running = {record.id: record for record in self._store.with_status(ExportStatus.RUNNING)}
        for export_id in self._runs.active() - set(running):
            self._runs.stop(export_id)
        for export_id in set(running) - self._runs.active():
            self._lost(running[export_id], "the tracker was restarted")
        for record in self._store.with_status(ExportStatus.PENDING):
            if len(self._runs.active()) >= self._max_running:
                break
            # One that was cancelled and is wanted again waits until its old run has ended.
            if record.id not in self._runs.active():
                self._start(record)
        self._clear_expired()
        if self._clock_s() - self._swept_at >= _SWEEP_INTERVAL_S:
            self._sweep()
            self._swept_at = self._clock_s()

    def needs_close_look(self) -> bool:
        """Return whether a run may end at any moment, and somebody waits for it."""
        return bool(self._runs.active())

    def _start(self, waiting: ExportRecord) -> None:
        record = self._store.start(waiting.id)
        if record is None:
            return
        need_bytes = self._need_bytes(record)
        largest_bytes = self._runs.largest_node_bytes()
        if largest_bytes is not None and need_bytes > largest_bytes:
            self._store.fail(
                record.id,
                record.attempt,
                ExportFailure.OUT_OF_MEMORY,
                f"the export needs {need_bytes / 1e9:.1f} GB of memory and the largest node gives "
                f"{largest_bytes / 1e9:.1f} GB; add a larger node",
            )
            return
        logger.info("export %s of job %s: attempt %d", record.id, record.job_id, record.attempt)
        self._runs.start(record, need_bytes)

    def _settle(self, end: ExportEnd) -> None:
        record = end.record
        if end.file is not None:
            self._store.complete(record.id, record.attempt, end.file)
        elif end.failure is not None:
            logger.warning("export %s failed (%s): %s", record.id, end.failure, end.words)
            self._store.fail(record.id, record.attempt, end.failure, end.words)
        elif not end.is_cancelled and self._store.is_running(record.id, record.attempt):
            self._lost(record, end.words)
        if not self._store.is_wanted(record.id):
            self._storage.delete(record.key)

    def _lost(self, record: ExportRecord, words: str) -> None:
        if record.attempt >= self._max_attempts:
            message = (
                f"the export was lost {record.attempt} times and SIENN_MAX_ATTEMPTS is {self._max_attempts}; "
                f"last: {words}"
            )
            self._store.fail(record.id, record.attempt, ExportFailure.INTERRUPTED, message)
            self._storage.delete(record.key)
            return
        logger.warning("export %s: attempt %d was lost (%s), it goes on", record.id, record.attempt, words)
        self._store.requeue(record.id, record.attempt, f"The export was interrupted and goes on ({words})")

    def _clear_expired(self) -> None:
        for record in self._store.expired():
            if self._store.forget_expired(record.id):
                logger.info("export %s of job %s has expired", record.id, record.job_id)
                self._storage.delete(record.key)

    def _sweep(self) -> None:
        """Delete what was never finished and belongs to no export: a process was killed before it could."""
        for key in unfinished(self._storage, utc_now() - _SWEPT_AGE):
            if key.rpartition("/")[2] not in self._store.ids():
                logger.info("clearing away %s, which belongs to no export", key)
                self._storage.delete(key)
