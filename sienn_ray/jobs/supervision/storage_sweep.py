"""Sweeps storage for files that no record of the job database stands for, and for those that have expired."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from sienn_ray.export.options import FOLDER_KEY as EXPORTS_KEY
from sienn_ray.export.options import folder_key, job_key
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.sweep_store import SweepStore
from sienn_ray.storage import Storage
from sienn_ray.storage_keys import ADAPTERS_KEY, CHECKPOINTS_KEY, LOGS_KEY, OWNERS_KEY

logger = logging.getLogger(__name__)

_INTERVAL_S, _RETRY_S = 3600.0, 60.0
_OF_JOBS = (ADAPTERS_KEY, CHECKPOINTS_KEY, EXPORTS_KEY, LOGS_KEY)
# Other names in these folders are somebody else's.
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EXPORT_ID = re.compile(r"[0-9a-f]{32}")
_WORDS = b"The name is that of a job database whose service uses this storage. While there are two, nothing is swept.\n"


class StorageSweep:
    """One `step` sweeps, unless the last sweep was within the hour; what it finds is deleted as if a user had done so.

    Nothing is swept while another job database has marked the storage as its own, or while this one knows no jobs: a
    wrong database URL must cost nobody an adapter.

    Args:
        store: The job database.
        storage: Where the files are.
        leftover_age_s: Seconds for which nothing may have changed in a folder of an unknown job or export.
        checkpoint_lifetime_s: Seconds that checkpoints of failed, cancelled and paused jobs are kept.
        clock: The time.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        store: SweepStore,
        storage: Storage,
        *,
        leftover_age_s: float,
        checkpoint_lifetime_s: float,
        clock: Callable[[], datetime] = utc_now,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._storage = storage
        self._leftover_age = timedelta(seconds=leftover_age_s)
        self._checkpoint_lifetime_s = checkpoint_lifetime_s
        self._clock = clock
        self._clock_s = clock_s
        self._next_s = float("-inf")

    def step(self) -> None:
        """Sweep, if it is time; raises what the store or the database raises, and sweeps nothing then."""
        if self._clock_s() < self._next_s:
            return
        self._next_s = self._clock_s() + _RETRY_S
        self._sweep()
        self._next_s = self._clock_s() + _INTERVAL_S

    def needs_close_look(self) -> bool:
        """Return False: nobody waits for a sweep."""
        return False

    def _sweep(self) -> None:
        if not self._is_ours():
            return
        known_jobs = self._store.job_ids()
        found = {folder: self._job_ids_in(folder) for folder in _OF_JOBS}
        unknown = set[str]().union(*found.values()) - known_jobs
        if unknown and not known_jobs:
            logger.warning("storage has %d jobs and the job database knows none; nothing is swept", len(unknown))
            return
        for job_id in self._store.discard_checkpoints(found[CHECKPOINTS_KEY], self._checkpoint_lifetime_s):
            logger.info("checkpoints of job %s have expired", job_id)
        for job_id in sorted(unknown):
            if self._is_old([f"{folder}/{job_id}" for folder in _OF_JOBS]) and self._store.discard_unknown_job(job_id):
                logger.info("files of job %s are deleted, which the job database doesn't know", job_id)
        wanted = self._store.wanted_exports()
        for job_id in sorted(found[EXPORTS_KEY] & known_jobs):
            self._sweep_exports(job_id, wanted)

    def _is_ours(self) -> bool:
        """Whether no other job database has left its name in this storage; this one leaves its own."""
        own = self._store.owner_id()
        if own not in self._storage.names(OWNERS_KEY):
            self._storage.write_bytes(f"{OWNERS_KEY}/{own}", _WORDS)
        others = [name for name in self._storage.names(OWNERS_KEY) if name != own and _EXPORT_ID.fullmatch(name)]
        if others:
            logger.warning(
                "storage is in use by another job database as well (%s); nothing is swept until only %s is in %s/",
                ", ".join(others),
                own,
                OWNERS_KEY,
            )
        return not others

    def _job_ids_in(self, folder: str) -> set[str]:
        return {name for name in self._storage.names(folder) if _JOB_ID.fullmatch(name)}

    def _sweep_exports(self, job_id: str, wanted: set[str]) -> None:
        for export_id in self._storage.names(job_key(job_id)):
            if export_id in wanted or not _EXPORT_ID.fullmatch(export_id):
                continue
            is_old = self._is_old([folder_key(job_id, export_id)])
            if is_old and self._store.discard_unwanted_export(job_id, export_id):
                logger.info("files of export %s of job %s are deleted, which nobody wants", export_id, job_id)

    def _is_old(self, keys: list[str]) -> bool:
        """Whether something is there, and nothing of it has changed for long."""
        moments = [moment for key in keys for _, moment in self._storage.changes(key)]
        moments = [moment if moment.tzinfo else moment.astimezone() for moment in moments]
        return bool(moments) and max(moments) < self._clock() - self._leftover_age
