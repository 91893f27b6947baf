"""A service that is in haste, and careful with what it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runs import UNDISTURBED
from tests.integration.service import ROWS, Service, running_service
from tests.integration.swept import leave_datasets


@pytest.fixture(scope="package")
def careful(tmp_path_factory: pytest.TempPathFactory, hub_home: Path) -> Iterator[Service]:
    """A service whose runs write a checkpoint after every step, whose engines end soon, whose requests for statistics
    hardly wait, and in whose storage there were datasets before it came.
    """
    home = tmp_path_factory.mktemp("careful")
    leave_datasets(home)
    with running_service(
        home,
        hub_home,
        SIENN_CHECKPOINT_INTERVAL_S="0.001",
        SIENN_REPORT_INTERVAL_S="0.05",
        SIENN_ENGINE_IDLE_TIMEOUT_S="3",
        SIENN_STATISTICS_TIMEOUT_S="0.1",
        # How often Serve hears how much an engine has to do, and so that it has nothing to do.
        RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1",
    ) as running:
        yield running


@pytest.fixture(scope="package")
def dataset_id(careful: Service) -> str:
    return careful.upload(ROWS)


@pytest.fixture(scope="package")
def undisturbed(careful: Service, dataset_id: str) -> Any:
    """A run on the careful service that nothing happens to."""
    return careful.wait_for_end(careful.start(dataset_id, **UNDISTURBED))
