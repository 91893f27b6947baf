"""Requests with keys, to a service that asks for them, and what another owner sees of the admin's work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx2

from tests.integration.outside import Restarted
from tests.integration.service import PROMPT, REQUEST_TIMEOUT_S, Service


def call(service: Service, method: str, path: str, key: str | None, **options: Any) -> httpx2.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.request(method, service.url + path, headers=headers, timeout=REQUEST_TIMEOUT_S, **options)


def run_command(service: Service, key: str, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {**service.environment, "SIENN_URL": service.url, "SIENN_API_KEY": key}
    command = [sys.executable, "-m", "sienn_ray.cli", *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)


def test_nobody_is_let_in_without_a_key(restarted: Restarted) -> None:
    service = restarted.service
    assert call(service, "GET", "/health", None).status_code == 200
    for key, fault in ((None, ""), ("wrong", ', error="invalid_token"')):
        refused = call(service, "GET", "/api/jobs", key)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, f'Bearer realm="sienn_ray"{fault}')
    assert refused.headers["ratelimit-policy"] == '"60s";q=6000;w=60, "3600s";q=100000;w=3600'


def test_an_owner_sees_nothing_of_the_admin_s(restarted: Restarted) -> None:
    service = restarted.service
    created = service.post("/api/keys", json={"name": "ada", "owner": "ada"})
    key = created["key"]
    assert call(service, "GET", "/api/jobs", key).json()["count"] == 0
    assert call(service, "GET", "/api/datasets", key).json()["datasets"] == []
    assert call(service, "GET", f"/api/training-status/{restarted.finished}", key).status_code == 404
    question = {"job_id": restarted.finished, "prompt": PROMPT}
    assert call(service, "POST", "/api/test-model", key, json=question).status_code == 404
    files = {"file": ("rows.jsonl", b'{"instruction": "a", "response": "b"}\n')}
    uploaded = call(service, "POST", "/api/upload-dataset", key, files=files).json()["dataset_id"]
    assert run_command(service, key, "datasets").stdout.count(uploaded) == 1
    assert uploaded in {dataset["id"] for dataset in service.get("/api/datasets")["datasets"]}
    assert run_command(service, key, "keys", "list").stderr.startswith("error: this needs the scope 'admin'")
    assert call(service, "DELETE", f"/api/datasets/{uploaded}", key).status_code == 200
    revoked = httpx2.delete(
        f"{service.url}/api/keys/{created['id']}", headers=service.headers, timeout=REQUEST_TIMEOUT_S
    )
    assert revoked.json()["revoked_at"]
