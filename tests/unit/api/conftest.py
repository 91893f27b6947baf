"""The application over fakes, with storage in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check.program import Work
from tests.support.fakes_api import FakeEngines, FakeJobLogs, dataset_record
from tests.support.fakes_cluster import FakeCluster
from tests.support.fakes_renderings import FakeRenderings
from tests.support.fakes_statistics import FakeStatistics
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import CONTRACT_ID, add_to_hub_cache

MAX_UPLOAD_BYTES = 100_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", max_upload_bytes=MAX_UPLOAD_BYTES)


@pytest.fixture
def tracker(settings: Settings) -> InProcessTracker:
    return InProcessTracker(settings)


@pytest.fixture
def engines() -> FakeEngines:
    return FakeEngines()


@pytest.fixture
def job_logs() -> FakeJobLogs:
    return FakeJobLogs()


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    yield cluster
    cluster.release.set()


@pytest.fixture
def statistics(storage: Storage) -> FakeStatistics:
    return FakeStatistics(storage)


@pytest.fixture
def renderings() -> FakeRenderings:
    return FakeRenderings()


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_url)


@pytest.fixture
def app(
    settings: Settings,
    tracker: InProcessTracker,
    engines: FakeEngines,
    storage: Storage,
    job_logs: FakeJobLogs,
    cluster: FakeCluster,
    statistics: FakeStatistics,
    renderings: FakeRenderings,
) -> FastAPI:
    return create_app(
        Backends(
            settings=settings,
            tracker=tracker,
            engines=engines,
            storage=storage,
            job_logs=job_logs,
            cluster=cluster,
            statistics=statistics,
            try_template=Work.answer,
            renderings=renderings,
        )
    )


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no connection to the hub. The folder is what HF_HOME names."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-home" / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub-home"


@pytest.fixture
def cached_base_model(hub_cache: Path, tiny_model_folder: Path) -> str:
    """A base model that can be fine-tuned, since the hub cache has it."""
    add_to_hub_cache(tiny_model_folder, hub_cache, CONTRACT_ID)
    return CONTRACT_ID


@pytest.fixture
def dataset(tracker: InProcessTracker) -> str:
    """A dataset that the tracker knows."""
    tracker.put(dataset_record())
    return "dataset-1"
