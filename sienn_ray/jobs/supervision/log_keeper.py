"""Copies the logs of attempts to storage once they have ended, since Ray's go with the cluster or the node."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sienn_ray.errors import first_line
from sienn_ray.jobs.store.attempt_logs import AttemptLog, AttemptLogStore
from sienn_ray.jobs.supervision.kept_log import KeptLog, without_secrets
from sienn_ray.jobs.supervision.ray_logs import ALL_LINES, RayLogs
from sienn_ray.storage import Storage
from sienn_ray.storage_keys import attempt_log_key, attempt_logs_key

logger = logging.getLogger(__name__)

# About a day of them, with the back-off between two.
_MAX_TRIES = 150
# Ray now and then sends nothing instead of a log.
_MAX_TRIES_OF_AN_EMPTY_LOG = 5


class LogKeeper:
    """One `step` keeps the logs of attempts that have ended since the last one.

    Args:
        store: Logs that are yet to be kept.
        ray_logs: Ray's logs; the workers' lines are in their program's.
        storage: Where logs are kept.
        max_bytes: Bytes of one log that are kept.
        deadline_s: Seconds within which Ray has to send a log.
        max_tries: Times that Ray is asked for one.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        store: AttemptLogStore,
        ray_logs: RayLogs,
        storage: Storage,
        *,
        max_bytes: int,
        deadline_s: float = 120.0,
        max_tries: int = _MAX_TRIES,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ray_logs = ray_logs
        self._storage = storage
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s
        self._max_tries = max_tries
        self._clock_s = clock_s

    def step(self) -> None:
        """Keep what can be kept; what can't holds up nothing else."""
        for log in self._store.due():
            try:
                self._keep(log)
            except LookupError as error:
                logger.info("there is no log of %s (%s)", log.submission_id, first_line(error))
                self._store.finish(log)
            except Exception as error:  # Ray and stores raise what they like
                self._postpone(log, f"{type(error).__name__}: {first_line(error)}")

    def needs_close_look(self) -> bool:
        """Return False: nobody waits for a log while Ray has it."""
        return False

    def _keep(self, log: AttemptLog) -> None:
        place = self._ray_logs.look(log.submission_id)
        if not place.has_ended:  # it has told its end, and is about to exit
            self._store.try_later(log)
            return
        if place.node_id is None:
            raise LookupError("it ended before its program began")
        kept = self._read(place.node_id, log)
        if not kept.num_bytes and log.num_tries < _MAX_TRIES_OF_AN_EMPTY_LOG:
            self._store.try_later(log)
            return
        content = without_secrets(kept.content())
        self._storage.write_bytes(attempt_log_key(log.job_id, log.attempt), content)
        if not self._store.finish(log):  # deleted meanwhile
            self._storage.delete(attempt_logs_key(log.job_id, log.attempt))

    def _read(self, node_id: str, log: AttemptLog) -> KeptLog:
        kept, started_s = KeptLog(self._max_bytes), self._clock_s()
        for chunk in self._ray_logs.read(node_id, log.submission_id, ALL_LINES):
            kept.add(chunk)
            if self._clock_s() - started_s > self._deadline_s:
                raise ConnectionError(f"it wasn't read to its end within {self._deadline_s:.0f} s")
        return kept

    def _postpone(self, log: AttemptLog, words: str) -> None:
        if log.num_tries >= self._max_tries:
            logger.warning("the log of %s isn't kept, Ray didn't send it: %s", log.submission_id, words)
            self._store.finish(log)
            return
        logger.info("the log of %s can't be kept yet (%s)", log.submission_id, words)
        self._store.try_later(log)
