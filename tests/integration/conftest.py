"""One service for all tests that don't break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.service import ROWS, Service, make_hub_home, running_service

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            # Far above what any of them takes; waiting for jobs has deadlines of its own.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    return make_hub_home(tmp_path_factory.mktemp("hub"), tiny_model_folder)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, hub_home: Path) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), hub_home) as running:
        yield running


@pytest.fixture(scope="session")
def completed_job(service: Service) -> str:
    """A fine-tune of the tiny model that has completed."""
    job_id = service.start(service.upload(ROWS), num_epochs=2, learning_rate=0.001, batch_size=8)
    service.wait_for_end(job_id)
    return job_id
