"""What Ray shows of a real service, and what its processes and logs show, has no secret in it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from sqlalchemy import make_url

from deployments.local_cluster import temp_dir
from tests.integration.outside import Restarted
from tests.integration.service import Service

# What Ray's dashboard and its command line tools ask.
DASHBOARD = (
    "/api/jobs/",
    "/api/serve/applications/",
    "/api/v0/actors?detail=1",
    "/api/v0/tasks?detail=1",
    "/api/v0/workers?detail=1",
    "/api/v0/runtime_envs?detail=1",
    "/nodes?view=summary",
    "/logical/actors",
)


@pytest.fixture
def service(restarted: Restarted) -> Service:
    return restarted.service


@pytest.fixture
def secrets(service: Service) -> dict[str, str]:
    """Secrets of the service by name; those that are too short to be found by chance are none."""
    environment = service.environment
    password = make_url(environment["SIENN_DATABASE_URL"]).password
    found = {
        "database": environment["SIENN_DATABASE_URL"],
        "password": str(password or ""),
        "admin key": environment.get("SIENN_ADMIN_KEY", ""),
        "storage": environment.get("AWS_SECRET_ACCESS_KEY", ""),
    }
    found = {name: value for name, value in found.items() if len(value) >= 8}
    assert {"database", "admin key"} <= set(found)
    return found


def shown_in(text: str, secrets: dict[str, str]) -> list[str]:
    return [name for name, value in secrets.items() if value in text]


@pytest.mark.parametrize("path", DASHBOARD)
def test_dashboard(service: Service, secrets: dict[str, str], path: str) -> None:
    token = (Path.home() / ".ray" / "auth_token").read_text().strip()
    response = httpx2.get(service.dashboard_url + path, headers={"Authorization": f"Bearer {token}"}, timeout=60.0)
    assert response.status_code == 200, response.text[:500]
    assert shown_in(response.text, secrets) == []
    # And it asks who wants to know.
    assert httpx2.get(service.dashboard_url + path, timeout=60.0).status_code in {401, 403}


def test_serve_status(service: Service, secrets: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ray.serve.scripts", "status", "--address", service.dashboard_url]
    result = subprocess.run(command, capture_output=True, text=True, env=service.environment, check=False, timeout=120)
    assert shown_in(result.stdout + result.stderr, secrets) == []


def test_command_lines(service: Service, secrets: dict[str, str]) -> None:
    lines = [json.dumps(line) for line in _command_lines(service)]
    assert any("raylet" in line for line in lines)
    assert [line for line in lines if shown_in(line, secrets)] == []


def _command_lines(service: Service) -> Iterator[list[str]]:
    root = psutil.Process(service.process.pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            yield process.cmdline()


def test_logs(service: Service, secrets: dict[str, str]) -> None:
    """Ray's, and the service's own."""
    home = Path(service.environment["SIENN_HOME"])
    logs = [*temp_dir(home).glob("session_*/logs/**/*"), service.log_path, *home.glob("*.log")]
    files = [path for path in logs if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    assert [str(path) for path in files if shown_in(path.read_text(errors="replace"), secrets)] == []
