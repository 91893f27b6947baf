"""An application with a completed job, its dataset and an export, and nothing but fakes behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import export_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.attacks.operations import DATASET, EXPORT, JOB


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a hub; those about it say otherwise."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home")


@pytest.fixture
def tracker(settings: Settings) -> InProcessTracker:
    tracker = InProcessTracker(settings)
    tracker.put(dataset_record(id=DATASET))
    tracker.put(job_record(id=JOB, dataset_id=DATASET, status=JobStatus.COMPLETED))
    tracker.put_export(export_record(JOB, id=EXPORT))
    return tracker


@pytest.fixture
def client(settings: Settings, tracker: InProcessTracker) -> Iterator[TestClient]:
    app = create_app(fake_backends(settings, tracker=tracker))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
