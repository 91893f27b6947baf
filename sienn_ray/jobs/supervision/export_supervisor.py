"""Keeps exports moving: starts those that wait, notes how runs end, and stops those that aren't wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from sienn_ray.errors import first_line
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.store.export_store import ExportStore
from sienn_ray.jobs.supervision.export_runs import ExportEnd, ExportRuns
from sienn_ray.jobs.supervision.isolation import Isolation
from sienn_ray.jobs.supervision.stopwatches import Stopwatches

logger = logging.getLogger(__name__)

# A run is interrupted first, and killed half a minute later.
_STOP_TIMEOUT_S = 300.0


class ExportSupervisor:
    """One `step` brings the database and the runs in line.

    Runs end with the process that started them, so those that an earlier process has left are begun again.

    Args:
        store: The exports in the database.
        runs: Their runs.
        need_bytes: Memory that a run of an export needs.
        max_running: Runs at once.
        max_attempts: Runs of one export that may be lost in a row without progress between them.
        silence_timeout_s: Seconds without a report after which a run is stopped, and made again.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        store: ExportStore,
        runs: ExportRuns,
        *,
        need_bytes: Callable[[ExportRecord], int],
        max_running: int,
        max_attempts: int,
        silence_timeout_s: float = 3600.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._runs = runs
        self._need_bytes = need_bytes
        self._max_running = max_running
        self._max_attempts = max_attempts
        self._silence_timeout_s = silence_timeout_s
        self._isolation = Isolation(clock_s, "export")
        self._silences = Stopwatches(clock_s)
        self._stops = Stopwatches(clock_s)

    def step(self) -> None:
        """Note ends, stop what isn't wanted, requeue what was lost, start what waits, end what has expired."""
        for end in self._runs.ends():
            self._isolation.attempt("note the end of", partial(self._settle, end), end.record)
        running = {record.id: record for record in self._store.with_status(ExportStatus.RUNNING)}
        for export_id in self._runs.active() - set(running):
            self._stop(export_id)
        for export_id in set(running) - self._runs.active():
            self._lose(running[export_id], "the tracker was restarted", is_counted=False)
        for export_id in set(running) & self._runs.active():
            self._isolation.attempt("look at", self._look_at, running[export_id])
        self._silences.keep_only(running)
        self._stops.keep_only(self._runs.active())
        self._admit()
        for record in self._store.delete_expired():
            logger.info("export %s of job %s has expired", record.id, record.job_id)

    def _admit(self) -> None:
        """Start waiting exports in the queue's order."""
        # One that was cancelled and is wanted again waits until its old run has ended.
        held_up = {*self._runs.active(), *self._isolation.waiting("start")}
        for record in self._store.waiting(self._max_running - len(self._runs.active()), held_up):
            self._isolation.attempt("start", self._start, record)

    def needs_close_look(self) -> bool:
        """Return whether a run may end at any moment, and somebody waits for it."""
        return bool(self._runs.active())

    def _start(self, waiting: ExportRecord) -> None:
        record = self._store.start(waiting.id)
        if record is None:
            return
        try:
            self._run(record)
        except Exception as error:
            self._lose(record, f"{type(error).__name__}: {first_line(error)}")
            raise

    def _run(self, record: ExportRecord) -> None:
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

    def _look_at(self, record: ExportRecord) -> None:
        """Stop a run that hangs; its end is a loss."""
        if self._silences.elapsed_s(record.id, (record.attempt, record.updated_at)) < self._silence_timeout_s:
            return
        logger.warning("export %s has reported nothing for %.0f s", record.id, self._silence_timeout_s)
        if self._stop(record.id):
            self._lose(record, self._words_of_silence())

    def _words_of_silence(self) -> str:
        return f"it reported nothing for SIENN_EXPORT_SILENCE_TIMEOUT_S={self._silence_timeout_s:g}"

    def _stop(self, export_id: str) -> bool:
        """Tell a run to end; returns whether it was told for so long that it won't, and is given up."""
        self._runs.stop(export_id)
        if self._stops.elapsed_s(export_id, export_id) < _STOP_TIMEOUT_S:
            return False
        logger.error("the run of export %s doesn't end, and is given up", export_id)
        self._runs.forget(export_id)
        return True

    def _settle(self, end: ExportEnd, _: ExportRecord) -> None:
        record = end.record
        if end.file is not None:
            self._store.complete(record.id, record.attempt, end.file)
        elif end.failure is not None:
            logger.warning("export %s failed (%s): %s", record.id, end.failure, end.words)
            self._store.fail(record.id, record.attempt, end.failure, end.words)
        elif self._store.is_running(record.id, record.attempt):
            words = self._words_of_silence() if end.is_cancelled else end.words
            self._lose(record, words, is_counted=not end.is_loss_of_node)
        self._store.discard_unwanted(record)
        # Not before: while the database is away, the end is given again at the next step.
        self._runs.forget(record.id)

    def _lose(self, lost: ExportRecord, words: str, *, is_counted: bool = True) -> None:
        """Have an export made again, unless it was lost too often without progress in between."""
        record = self._store.get(lost.id)
        num_losses = record.num_losses_with_one_more
        if is_counted and num_losses >= self._max_attempts:
            message = (
                f"the export was lost {num_losses} times without progress and SIENN_MAX_ATTEMPTS is "
                f"{self._max_attempts}; last: {words}"
            )
            self._store.fail(record.id, lost.attempt, ExportFailure.INTERRUPTED, message)
            return
        logger.warning("export %s: attempt %d was lost (%s), it goes on", record.id, lost.attempt, words)
        told = f"The export was interrupted and goes on ({words})"
        self._store.requeue(record.id, lost.attempt, told, is_counted=is_counted)
