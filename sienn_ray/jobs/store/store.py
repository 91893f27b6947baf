"""The job database and what is in it. SQL is nowhere but in the modules behind this one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sienn_ray.jobs.schema import Overview, utc_now
from sienn_ray.jobs.store import overview
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.dataset_store import DatasetStore
from sienn_ray.jobs.store.export_store import ExportStore
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.metric_store import MetricStore
from sienn_ray.jobs.store.signing_key import signing_key


class Store:
    """Datasets, jobs, exports and metrics in one database; safe to use from several threads.

    Args:
        url: SQLAlchemy URL. Migrations run here, so a new database is ready to use.
        clock: The time.
        export_lifetime_s: Seconds that a completed export is kept.
    """

    def __init__(
        self, url: str, clock: Callable[[], datetime] = utc_now, export_lifetime_s: float = 7 * 86400.0
    ) -> None:
        self._clock = clock
        self.database = Database(url)
        self.datasets = DatasetStore(self.database)
        self.jobs = JobStore(self.database, clock)
        self.exports = ExportStore(self.database, clock, export_lifetime_s)
        self.metrics = MetricStore(self.database, clock)

    def overview(self) -> Overview:
        """Numbers over all jobs and datasets."""
        with self.database.reading() as connection:
            return overview.read(connection, self._clock())

    def signing_key(self) -> bytes:
        """Return the key that signs links to downloads; made at first use."""
        return signing_key(self.database)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
