"""Replicas of a service that asks for keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker

ADMIN_KEY = "an-admin-s-key-" + "x" * 32


@pytest.fixture
def service(tmp_path: Path, tracker: InProcessTracker) -> Iterator[Callable[..., TestClient]]:
    """Make a replica; all have one tracker."""
    with ExitStack() as clients:

        def make(client: str = "10.0.0.1", **fields: Any) -> TestClient:
            chosen = {"env": "test", "home": tmp_path / "home", "auth": "on", "admin_key": ADMIN_KEY, **fields}
            app = create_app(fake_backends(Settings(**chosen), tracker=tracker))
            return clients.enter_context(TestClient(app, client=(client, 1)))

        yield make
