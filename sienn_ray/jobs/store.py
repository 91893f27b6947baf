"""The job database and what is in it. SQL is nowhere but in the modules behind this one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sienn_ray.jobs import overview
from sienn_ray.jobs.database import Database
from sienn_ray.jobs.dataset_store import DatasetStore
from sienn_ray.jobs.job_store import JobStore
from sienn_ray.jobs.metric_store import MetricStore
from sienn_ray.jobs.schema import Overview, utc_now


class Store:
    """Datasets, jobs and metrics in one database; safe to use from several threads.

    Args:
        url: SQLAlchemy URL. Migrations run here, so a new database is ready to use.
        clock: The time.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self.database = Database(url)
        self.datasets = DatasetStore(self.database)
        self.jobs = JobStore(self.database, clock)
        self.metrics = MetricStore(self.database, clock)

    def overview(self) -> Overview:
        """Numbers over all jobs and datasets."""
        with self.database.reading() as connection:
            return overview.read(connection, self._clock())

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
