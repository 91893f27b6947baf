"""Applications of one process share what takes long to make, and nothing else."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends


def test_routes_are_made_once_and_answer_for_each_application(tmp_path: Path) -> None:
    apps = [create_app(fake_backends(Settings(env=env, home=tmp_path / env))) for env in ("test", "production")]
    first, second = ({id(route) for route in app.router.routes} for app in apps)
    assert first & second
    for app, env in zip(apps, ("test", "production"), strict=True):
        with TestClient(app) as client:
            assert client.get("/health").json()["env"] == env
