"""Every error is `{"detail": "...", "status_code": n}`, with n the status of the response."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from sienn_ray.errors import (
    ArtifactError,
    CapacityError,
    EngineError,
    InvalidInputError,
    NotFoundError,
    SiennError,
    TrainingError,
    TransitionError,
)
from sienn_ray.jobs.schema import JobStatus
from tests.fakes_api import FakeTracker, job_record

UNKNOWN_ID = "f8e7d3b2-1234-5678-9abc-def012345678"


def detail_of(response: Response, status: int) -> str:
    """The message of an error, after a look at its shape."""
    body = response.json()
    assert response.status_code == status
    assert set(body) == {"detail", "status_code"}
    assert body["status_code"] == status
    assert isinstance(body["detail"], str)
    assert body["detail"]
    return body["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("GET", "/nowhere", None, 404, "GET /nowhere is not part of this API; /docs lists what is"),
        ("POST", "/api/nowhere", {}, 404, "POST /api/nowhere is not part of this API; /docs lists what is"),
        ("DELETE", "/health", None, 405, "DELETE is not allowed on /health; /docs lists what is"),
        ("GET", "/api/upload-dataset", None, 405, "GET is not allowed on /api/upload-dataset; /docs lists what is"),
        ("GET", f"/api/training-status/{UNKNOWN_ID}", None, 404, f"Job {UNKNOWN_ID} not found"),
        ("GET", f"/api/download-model/{UNKNOWN_ID}", None, 404, f"Job {UNKNOWN_ID} not found"),
        ("POST", "/api/test-model", {"job_id": UNKNOWN_ID, "prompt": "a"}, 404, f"Job {UNKNOWN_ID} not found"),
        ("POST", "/api/start-finetuning", {"dataset_id": UNKNOWN_ID}, 404, f"Dataset {UNKNOWN_ID} not found"),
    ],
)
def test_message_says_what_is_wrong(
    client: TestClient, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    assert detail_of(client.request(method, path, json=body), status) == detail


def test_wrong_method_says_which_one_is_allowed(client: TestClient) -> None:
    assert client.delete("/health").headers["allow"] == "GET"


def test_bad_request_has_the_shape(client: TestClient, tracker: FakeTracker) -> None:
    tracker.put(job_record(status=JobStatus.RUNNING))
    response = client.post("/api/test-model", json={"job_id": "job-1", "prompt": "a"})
    expected = "Job status is 'running', model testing is only available for completed jobs"
    assert detail_of(response, 400) == expected


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ({"dataset_id": "d", "num_epochs": 11}, ["num_epochs", "less than or equal to 10", "11"]),
        ({"dataset_id": "d", "max_length": 127}, ["max_length", "greater than or equal to 128", "127"]),
        ({"dataset_id": "d", "batch_size": "many"}, ["batch_size", "valid integer", "'many'"]),
        ({"dataset_id": 7}, ["dataset_id", "valid string", "7"]),
        ({}, ["dataset_id", "required"]),
        ({"dataset_id": "d", "num_epoch": 3}, ["num_epoch", "not permitted", "3"]),
        ({"dataset_id": "d", "num_epochs": 0, "batch_size": 0}, ["num_epochs", "; batch_size"]),
        ([], ["body", "[]"]),
    ],
)
def test_validation_error_names_field_limit_and_value(client: TestClient, body: Any, parts: list[str]) -> None:
    detail = detail_of(client.post("/api/start-finetuning", json=body), 422)
    assert [part for part in parts if part not in detail] == []


def test_long_value_is_cut_in_a_validation_error(client: TestClient) -> None:
    body = {"dataset_id": "d", "num_epochs": "x" * 10_000}
    assert len(detail_of(client.post("/api/start-finetuning", json=body), 422)) < 300


@pytest.mark.parametrize("content", ["", "{", "null", '"text"', "\ufeff{}"])
def test_body_that_is_no_json_object_is_a_validation_error(client: TestClient, content: str) -> None:
    headers = {"content-type": "application/json"}
    detail_of(client.post("/api/start-finetuning", content=content.encode(), headers=headers), 422)


@pytest.mark.parametrize(
    "text", ['{"dataset_id": "d", "learning_rate": NaN}', '{"dataset_id": "\\ud800"}', '{"dataset_id": null}']
)
def test_value_that_json_cannot_hold_is_still_named(client: TestClient, text: str) -> None:
    headers = {"content-type": "application/json"}
    detail = detail_of(client.post("/api/start-finetuning", content=text, headers=headers), 422)
    assert next(reversed(json.loads(text))) in detail


def test_field_name_that_is_no_text_is_shown_escaped(client: TestClient) -> None:
    content = b'{"dataset_id": "d", "\\ud800": 1}'
    response = client.post("/api/start-finetuning", content=content, headers={"content-type": "application/json"})
    assert r"\ud800" in detail_of(response, 422)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("no such thing"), 404),
        (InvalidInputError("not like this"), 400),
        (TransitionError("not from there"), 409),
        (CapacityError("too much"), 503),
        (ArtifactError("altered"), 500),
        (EngineError("not loaded"), 500),
        (TrainingError("diverged"), 500),
        (SiennError("something else"), 500),
    ],
)
def test_own_error_keeps_its_message(client: TestClient, tracker: FakeTracker, error: SiennError, status: int) -> None:
    tracker.error = error
    assert detail_of(client.get("/api/jobs"), status) == error.message


def test_lack_of_capacity_says_when_to_come_back(client: TestClient, tracker: FakeTracker) -> None:
    tracker.error = CapacityError("the job tracker is restarting", retry_after_s=7)
    response = client.get("/api/datasets")
    detail_of(response, 503)
    assert response.headers["retry-after"] == "7"


def test_other_errors_do_not_ask_to_come_back(client: TestClient, tracker: FakeTracker) -> None:
    tracker.error = EngineError("not loaded")
    assert "retry-after" not in client.get("/api/datasets").headers


def test_unexpected_error_shows_a_request_id_and_nothing_of_its_cause(
    app: FastAPI, tracker: FakeTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.error = KeyError("a secret")
    with TestClient(app, raise_server_exceptions=False) as client, caplog.at_level(logging.ERROR):
        detail = detail_of(client.get("/api/jobs"), 500)
    request_id = re.fullmatch(r"Internal error; .* request id ([0-9a-f]{32})", detail)
    assert request_id is not None
    assert request_id[1] in caplog.text
    assert "a secret" in caplog.text
    assert not re.search("secret|Traceback|KeyError|\\.py", detail)


def test_documented_errors_have_the_shape(app: FastAPI) -> None:
    operations = [operation for path in app.openapi()["paths"].values() for operation in path.values()]
    errors = [
        response["content"]["application/json"]["schema"]
        for operation in operations
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]
    assert errors
    assert [schema for schema in errors if schema != {"$ref": "#/components/schemas/ErrorResponse"}] == []
