"""A service as it is when nothing is set, and runs on it that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runs import QueuedRuns, WatchedRun, queue_runs, watch_run
from tests.integration.service import JOB_TIMEOUT_S, Service, running_service, wait_for


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory, hub_home: Path) -> Iterator[Service]:
    """A service as it is when nothing is set."""
    with running_service(tmp_path_factory.mktemp("service"), hub_home) as running:
        yield running


@pytest.fixture(scope="package")
def watched_run(service: Service) -> WatchedRun:
    """A run from its start to its end."""
    return watch_run(service)


@pytest.fixture(scope="package")
def completed_job(watched_run: WatchedRun) -> str:
    """A fine-tune of the tiny model that has completed."""
    return watched_run.job_id


@pytest.fixture(scope="package")
def queued(service: Service, completed_job: str) -> QueuedRuns:
    """Runs that were asked for all at once, and have all ended; an engine of their base model was there meanwhile."""

    def is_idle() -> bool:
        return not {"pending", "running"} & {job["status"] for job in service.get("/api/jobs")["jobs"]}

    wait_for(is_idle, "the end of earlier jobs", JOB_TIMEOUT_S)
    return queue_runs(service, completed_job)
