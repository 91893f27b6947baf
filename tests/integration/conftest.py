"""What holds for all tests on a real cluster.

Those that use the same service are in one folder, which `ByFolder` has run in one process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.service import make_hub_home

HERE = Path(__file__).parent
# Folders by how long they take: a long one that begins last has one process wait for it.
LONGEST_FIRST = ("plain", "careful", "chaos", "restarted", "vllm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            # Far above what any of them takes. Waiting for a service and for jobs has deadlines of its own, so a test
            # isn't charged with the runs that its fixtures make for all.
            item.add_marker(pytest.mark.timeout(900, func_only=True))
    # The last one within its folder only; items come folder by folder.
    items.sort(key=lambda item: (_place(item.path.parent), item.get_closest_marker("last") is not None))


def _place(folder: Path) -> tuple[int, str]:
    is_known = folder.parent == HERE and folder.name in LONGEST_FIRST
    return LONGEST_FIRST.index(folder.name) if is_known else len(LONGEST_FIRST), str(folder)


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    return make_hub_home(tmp_path_factory.mktemp("hub"), tiny_model_folder)
