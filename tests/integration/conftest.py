"""What holds for all tests on a real cluster.

Those that use the same service are in one folder, which `ByFolder` has run in one process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.service import make_hub_home

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            # Far above what any of them takes; waiting for jobs has deadlines of its own.
            item.add_marker(pytest.mark.timeout(900))
    # Within a folder only; items come folder by folder.
    items.sort(key=lambda item: (str(item.path.parent), item.get_closest_marker("last") is not None))


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    return make_hub_home(tmp_path_factory.mktemp("hub"), tiny_model_folder)
