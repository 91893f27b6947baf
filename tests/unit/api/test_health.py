from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray import __version__
from tests.fakes_api import FakeTracker


def test_it_says_ok_and_the_environment(client: TestClient) -> None:
    response = client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "env": "test"})


def test_it_answers_while_the_tracker_is_broken(client: TestClient, tracker: FakeTracker) -> None:
    tracker.error = RuntimeError("the database is gone")
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_interactive_documentation_is_served(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


def test_version_is_that_of_the_package(app: FastAPI) -> None:
    assert app.openapi()["info"]["version"] == __version__
