"""Leads jobs through every change, since requests that are made up get there by luck alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import schemathesis

# In this order, each has its chance with some job: one that runs, was just paused, cancelled or retried, or completed.
_OPERATIONS = (
    ("POST", "/api/jobs/{job_id}/pause"),
    ("POST", "/api/jobs/{job_id}/resume"),
    ("POST", "/api/jobs/{job_id}/cancel"),
    ("POST", "/api/jobs/{job_id}/retry"),
    ("GET", "/api/training-status/{job_id}"),
    ("GET", "/api/jobs/{job_id}"),
    ("GET", "/api/jobs/{job_id}/events"),
    ("GET", "/api/jobs/{job_id}/metrics"),
    ("GET", "/api/jobs/{job_id}/logs"),
    ("GET", "/api/events/jobs/{job_id}"),
    ("GET", "/api/events"),
    ("GET", "/api/events/metrics"),
    ("POST", "/api/test-model"),
    ("POST", "/api/compare-models"),
    ("POST", "/api/demo/test-tinyllama"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/api/download-model/{job_id}"),
    ("POST", "/api/jobs/{job_id}/cancel"),
    ("DELETE", "/api/jobs/{job_id}"),
)
_MESSAGES = [{"role": "user", "content": "a"}]
# What is sent about a job, each in its turn.
_BODIES: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "/api/test-model": lambda job_id: _with_and_without_stream({"job_id": job_id, "prompt": "a"}),
    "/api/compare-models": lambda job_id: [{"job_ids": [job_id], "prompt": "a"}],
    "/api/demo/test-tinyllama": lambda _: [{"prompt": "a"}],
    "/v1/chat/completions": lambda job_id: _with_and_without_stream({"model": job_id, "messages": _MESSAGES}),
    "/v1/completions": lambda job_id: _with_and_without_stream({"model": job_id, "prompt": "a"}),
}
# Of what has no end by itself.
_QUERIES = {path: {"limit": 1} for path in ("/api/events/jobs/{job_id}", "/api/events", "/api/events/metrics")}
_DEADLINE_S = 120.0
# The tracker looks at the runs in between.
_PAUSE_S = 0.1


def _with_and_without_stream(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**body, "stream": stream} for stream in (False, True)]


class Walk:
    """Calls operations of a service, and checks each response against the service's own document.

    Args:
        url: The service.
    """

    def __init__(self, url: str) -> None:
        self._schema: Any = schemathesis.openapi.from_url(f"{url}/openapi.json")
        self._client = httpx2.Client(base_url=url, timeout=60.0)

    def run(self) -> None:
        """Go on with new jobs until every operation has succeeded once."""
        deadline = time.monotonic() + _DEADLINE_S
        missing = set(_OPERATIONS)
        file = {"file": ("conversations.csv", b"instruction,response\na,b\n")}
        with self._client:
            self._prove_who_it_is()
            self._webhook()
            dataset_id = self._call("POST", "/api/upload-dataset", files=file).json()["dataset_id"]
            self._versions(dataset_id)
            # Made-up requests seldom have a dataset that is there, a base model that is, and a length that may be.
            assert self._call("GET", "/api/datasets/{dataset_id}/statistics", dataset_id=dataset_id).is_success
            assert self._call("GET", "/api/datasets/{dataset_id}/rendered", dataset_id=dataset_id).is_success
            while missing:
                assert time.monotonic() < deadline, f"no job got through {sorted(missing)}"
                started = self._call("POST", "/api/start-finetuning", json={"dataset_id": dataset_id})
                missing -= self._lead(started.json()["job_id"])

    def _versions(self, dataset_id: str) -> None:
        """Make a version of a dataset, and compare it with the first one."""
        path, file = "/api/datasets/{dataset_id}/versions", {"file": ("more.csv", b"instruction,response\nc,d\n")}
        made = self._call("POST", path, dataset_id=dataset_id, files=file, params={"change": "append"})
        assert made.json()["version"] == 2
        assert self._call("GET", path, dataset_id=dataset_id).json()["count"] == 2
        assert self._call("GET", "/api/datasets/{dataset_id}/diff", dataset_id=dataset_id).json()["num_added"] == 1

    def _prove_who_it_is(self) -> None:
        """Exchange a new API key for tokens and for a session."""
        key = self._call("POST", "/api/keys", json={"name": "a walk"}).json()
        form = {"grant_type": "client_credentials", "client_id": key["id"], "client_secret": key["key"]}
        tokens = self._call("POST", "/api/auth/token", data=form).json()
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        assert self._call("POST", "/api/auth/token", data=form).is_success
        for path in ("/api/auth/jwks", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"):
            assert self._call("GET", path).is_success
        assert self._call("POST", "/api/auth/token-keys/rotate").is_success
        headers = {"Authorization": f"Bearer {key['key']}"}
        assert self._call("POST", "/api/auth/session", headers=headers).is_success
        assert self._call("DELETE", "/api/auth/session").is_success
        assert self._call("POST", "/api/auth/logout").is_success
        assert self._call("DELETE", "/api/auth/sessions", params={"owner": "nobody"}).is_success

    def _lead(self, job_id: str) -> set[tuple[str, str]]:
        """Try every operation on one job; returns those that succeeded."""
        done = set()
        for method, path in _OPERATIONS:
            if not path.endswith(("/pause", "/resume")):  # at once, before the run has ended by itself
                time.sleep(_PAUSE_S)
            bodies = _BODIES[path](job_id) if path in _BODIES else [{}]
            query = _QUERIES.get(path)
            answers = [self._call(method, path, job_id=job_id, json=body or None, params=query) for body in bodies]
            if all(answer.is_success for answer in answers):
                done.add((method, path))
            if path == "/api/download-model/{job_id}" and answers[0].is_success:
                self._export(job_id)
        return done

    def _export(self, job_id: str) -> None:
        """Export a completed job, download it, cancel another export, and delete one."""
        made = self._call("POST", "/api/export-model/{job_id}", job_id=job_id, json={"format": "gguf"}).json()
        ids = {"job_id": job_id, "export_id": made["export_id"]}
        assert self._call("GET", "/api/exports/{job_id}", job_id=job_id).json()["count"] == 1
        self._call("GET", "/api/exports/{job_id}/{export_id}", **ids)
        link = urlsplit(made["download_url"])
        file = self._call(
            "GET",
            "/api/export-files/{job_id}/{export_id}/{file_name}",
            **ids,
            file_name=made["file_name"],
            params=dict(parse_qsl(link.query)),
        )
        assert len(file.content) == made["file_size_bytes"]
        body, query = {"format": "ollama"}, {"wait": "false"}
        begun = self._call("POST", "/api/export-model/{job_id}", job_id=job_id, json=body, params=query).json()
        cancelled = {**ids, "export_id": begun["export_id"]}
        assert self._call("POST", "/api/exports/{job_id}/{export_id}/cancel", **cancelled).is_success
        assert self._call("DELETE", "/api/exports/{job_id}/{export_id}", **ids).is_success

    def _webhook(self) -> None:
        """Have a webhook lead to the service itself, and a ping be delivered twice."""
        body = {"url": f"{str(self._client.base_url).rstrip('/')}/health"}
        made = self._call("POST", "/api/webhooks", json=body).json()
        one = {"webhook_id": made["webhook_id"]}
        assert self._call("PATCH", "/api/webhooks/{webhook_id}", **one, json={"description": "a walk"}).is_success
        assert self._call("POST", "/api/webhooks/{webhook_id}/rotate-secret", **one, json={}).is_success
        ping = self._call("POST", "/api/webhooks/{webhook_id}/test", **one).json()
        again = {**one, "delivery_id": ping["delivery_id"]}
        path = "/api/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
        assert self._call("POST", path, **again).is_success
        assert self._call("GET", "/api/webhooks/{webhook_id}/deliveries", **one).is_success
        for operation in ("GET", "DELETE"):
            assert self._call(operation, "/api/webhooks/{webhook_id}", **one).is_success

    def _call(
        self,
        method: str,
        path: str,
        job_id: str = "",
        export_id: str = "",
        file_name: str = "",
        webhook_id: str = "",
        delivery_id: str = "",
        dataset_id: str = "",
        **request: Any,
    ) -> httpx2.Response:
        ids = {"job_id": job_id, "model": job_id, "export_id": export_id, "file_name": file_name}
        others = {"webhook_id": webhook_id, "delivery_id": delivery_id, "dataset_id": dataset_id}
        response = self._client.request(method, path.format(**ids, **others), **request)
        response.request.read()  # what is validated shows it
        self._schema[path][method].validate_response(response)
        return response
