"""The service on a cluster that somebody else started: `serve deploy` and `ray job submit`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import yaml

from deployments.local_cluster import local_cluster
from tests.integration.service import REQUEST_TIMEOUT_S, ROWS, environment, free_port, wait_for
from tests.support.tiny_model import TINY_ID

ROOT = Path(__file__).parents[2]


def command(module: str, *words: str, variables: dict[str, str]) -> str:
    result = subprocess.run(
        [sys.executable, "-m", module, *words], env=variables, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_serve_deploy_and_ray_job_submit(tmp_path: Path, hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    variables = environment(home, hub_home)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = yaml.safe_load((ROOT / "serveconfig.yaml").read_text())
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["home"] = str(home)
    (tmp_path / "serveconfig.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "rows.jsonl").write_text(ROWS)
    url = f"http://127.0.0.1:{port}"

    with local_cluster(home) as cluster:
        deploy = ("deploy", "-a", cluster.dashboard_url, str(tmp_path / "serveconfig.yaml"))
        command("ray.serve.scripts", *deploy, variables=variables)
        wait_for(lambda: is_healthy(url), "health", 120.0)
        assert httpx2.get(f"{url}/health", timeout=REQUEST_TIMEOUT_S).json()["env"] == "production"

        output = command(
            "ray.scripts.scripts",
            *("job", "submit", "--address", cluster.dashboard_url, "--", sys.executable, "-m", "sienn_ray.train"),
            *("--dataset", str(tmp_path / "rows.jsonl"), "--base-model", TINY_ID, "--num-epochs", "1"),
            variables=variables,
        )
        job_id = re.search(r"job_id: (\S+)", output)
        assert job_id is not None, output
        (job,) = httpx2.get(f"{url}/api/jobs", timeout=REQUEST_TIMEOUT_S).json()["jobs"]
        assert (job["job_id"], job["status"]) == (job_id[1], "completed")
        body = {"job_id": job_id[1], "prompt": "What is the code word of room 2?", "max_new_tokens": 10}
        answer = httpx2.post(f"{url}/api/test-model", json=body, timeout=240.0)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model_path"].endswith(job_id[1])

        refused = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard_url, "--",
             sys.executable, "-m", "sienn_ray.train", "--dataset", str(tmp_path / "missing.jsonl"),
             "--base-model", TINY_ID],
            env=variables, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert refused.returncode != 0
        assert "missing.jsonl can't be read" in refused.stdout
        assert len(httpx2.get(f"{url}/api/jobs", timeout=REQUEST_TIMEOUT_S).json()["jobs"]) == 1


def is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=REQUEST_TIMEOUT_S).is_success
    except httpx2.HTTPError:
        return False
