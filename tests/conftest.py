"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support import quick_sqlite
from tests.support.by_folder import ByFolder
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.tiny_model import save_tiny_model

quick_sqlite.install()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder | None:
    """Who `--dist loadgroup` has share the tests of a run; other ways of pytest-xdist are its own."""
    return ByFolder(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the random two-layer model, made once for all tests, and all processes that run some of them."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "tiny-model"
    with FileLock(root / "tiny-model.lock"):
        if not folder.exists():
            save_tiny_model(root / "tiny-model.partial")
            (root / "tiny-model.partial").rename(folder)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, started by the first test that asks for it."""
    with postgres_server() as server:
        yield server
