"""A job database in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sienn_ray.jobs.store import Store
from tests.fakes_jobs import dataset_record


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """URL of a database that doesn't exist yet, nor its folder."""
    return f"sqlite:///{tmp_path}/home/sienn.db"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store with one dataset, `dataset-1`."""
    store = Store(database_url)
    store.add_dataset(dataset_record())
    yield store
    store.close()
