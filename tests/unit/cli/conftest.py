"""A service over a socket, with fakes behind it, for commands to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sienn_ray.api.app import create_app
from sienn_ray.cli import output
from sienn_ray.export.archive import ARCHIVE_FILES
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import FakeEngines, FakeJobLogs, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import CONTENT
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import serving


@pytest.fixture
def tracker(tmp_path: Path) -> InProcessTracker:
    return InProcessTracker(Settings(env="test", home=tmp_path))


@pytest.fixture
def job_logs() -> FakeJobLogs:
    return FakeJobLogs()


@pytest.fixture
def engines() -> FakeEngines:
    return FakeEngines()


@pytest.fixture
def service(
    tmp_path: Path,
    tracker: InProcessTracker,
    engines: FakeEngines,
    job_logs: FakeJobLogs,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    settings = Settings(env="test", home=tmp_path)
    backends = fake_backends(settings, tracker=tracker, engines=engines, job_logs=job_logs)
    with serving(create_app(backends)) as url:
        monkeypatch.setenv("SIENN_URL", url)
        monkeypatch.setattr(output.console, "width", 200)
        yield url


@pytest.fixture
def exported(tracker: InProcessTracker, tmp_path: Path, service: str) -> bytes:
    """A completed job whose exports are made while they are watched; gives what they contain."""
    storage = Storage(Settings(env="test", home=tmp_path).storage_url)
    tracker.put(job_record(status=JobStatus.COMPLETED))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ARCHIVE_FILES:
        (adapter / name).touch()
    storage.publish(adapter, "adapters/job-1")

    tracker.before["export"] = lambda _: tracker.make_exports()
    return CONTENT
