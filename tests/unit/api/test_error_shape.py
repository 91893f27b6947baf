"""Every error is `{"detail": "...", "status_code": n}`, with n the status of the response; under /v1 it is another."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from httpx2 import Response
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from sienn_ray.api.http.errors import error_response
from sienn_ray.errors import (
    ArtifactError,
    CapacityError,
    ConflictError,
    EngineError,
    InvalidInputError,
    MediaTypeError,
    NotFoundError,
    SiennError,
    TooManyRequestsError,
    TrainingError,
    TransitionError,
    UploadTooLargeError,
)
from sienn_ray.jobs.schema import JobStatus
from tests.support.fakes_api import job_record
from tests.support.in_process_tracker import InProcessTracker

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


def test_every_method_of_a_path_is_named(app: FastAPI) -> None:
    router = APIRouter()
    router.add_api_route("/things", lambda: None, methods=["GET"])
    other_router = APIRouter()
    other_router.add_api_route("/things", lambda: None, methods=["DELETE"])
    app.include_router(router)
    app.include_router(other_router)
    with TestClient(app) as client:
        assert client.put("/things").headers["allow"] == "GET, DELETE"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "PROPFIND"])
@pytest.mark.parametrize("path", ["/health", "/api/jobs", "/docs", "/openapi.json"])
def test_unusual_methods_are_refused_cleanly(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    if method == "HEAD" and path == "/openapi.json":
        assert response.status_code == 200
        return
    assert response.status_code == 405
    assert response.headers["allow"].split(", ")[0] == "GET"


@pytest.mark.parametrize(
    "path", ["/api/" + "a" * 20_000, "/api/%0d%0aSet-Cookie:%20a=b", "/api/%00", "/api/%ff%fe", "/api/\u202egpj"]
)
def test_path_is_shown_cut_and_escaped(client: TestClient, path: str) -> None:
    detail = detail_of(client.get(path), 404)
    assert len(detail) < 300
    assert detail.isprintable()


def test_bad_request_has_the_shape(client: TestClient, tracker: InProcessTracker) -> None:
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
        ({"dataset_id": "d", "num_epoch": 3}, ["num_epoch", "isn't known here", "3"]),
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


def send_json(client: TestClient, content: str | bytes, path: str = "/api/start-finetuning") -> Response:
    return client.post(path, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("[" * 10_000 + "]" * 10_000, "nested too deeply"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested too deeply"),
        ('{"dataset_id": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"dataset_id": "d", "num_epochs": ' + "9" * 10_000 + "}", "too many digits"),
        ('{"dataset_id": "d", "num_epochs": ' + "9" * 4_000 + "}", "num_epochs"),
        ('{"dataset_id": "d", "learning_rate": 1e' + "9" * 10_000 + "}", "learning_rate"),
        ('{"dataset_id": "d", "learning_rate": -Infinity}', "learning_rate"),
        ('{"dataset_id": "d", "learning_rate": 0.' + "0" * 10_000 + "1}", "learning_rate"),
        ('{"dataset_id": "d", "num_epochs": 1e400}', "num_epochs"),
        ('{"dataset_id": "d", "num_epochs": true}', "num_epochs"),
        ('{"dataset_id": "d", "num_epochs": "3"}', "num_epochs"),
        ('{"dataset_id": "d", "num_epochs": 2.5}', "num_epochs"),
        (b'{"dataset_id": "\xff\xfe"}', "not UTF-8 at byte 16"),
        (b'{"dataset_id": "d", "a\x00": 1}', "not JSON"),
        ('{"dataset_id": "d", "a\\u0000": 1}', "a\\x00"),
        ("{" + ",".join(f'"field{number}": 1' for number in range(999)) + "}", "and 989 more"),
        ("{" + ",".join(f'"field{number}": 1' for number in range(50_000)) + "}", "50000 items"),
        ('{"dataset_id": "d", "labels": {' + ",".join(f'"{n}": 1' for n in range(50_000)) + "}}", "50000 items"),
        ('{"dataset_id": "d", "target_modules": [' + ",".join("1" for _ in range(400_000)) + "]}", "400000 items"),
        ('{"' + "k" * 500_000 + '": 1}', "kkk"),
        ('{"dataset_id": "d",}', "not JSON"),
        ("'" * 1_000, "not JSON"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_hostile_json_is_a_validation_error(client: TestClient, content: str | bytes, part: str) -> None:
    detail = detail_of(send_json(client, content), 422)
    assert part in detail
    assert len(detail) < 1_500


@pytest.mark.parametrize("depth", range(5, 1_000, 35))
def test_depth_just_within_the_parsers_reach_is_a_validation_error(client: TestClient, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    detail_of(send_json(client, '{"dataset_id": "d", "num_epochs": ' + nested + "}"), 422)


def test_last_of_two_equal_keys_counts(client: TestClient) -> None:
    detail = detail_of(send_json(client, '{"dataset_id": "first", "dataset_id": "last"}'), 404)
    assert detail == "Dataset last not found"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "multipart/form-data",
        "*/*",
        "",
    ],
)
def test_body_of_another_type_is_refused(client: TestClient, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = client.post("/api/start-finetuning", content=b'{"dataset_id": "d"}', headers=headers)
    assert f"'{content_type}' is not application/json" in detail_of(response, 415)


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"]
)
def test_json_is_taken_however_it_is_declared(client: TestClient, content_type: str) -> None:
    headers = {"content-type": content_type}
    detail_of(client.post("/api/start-finetuning", content=b'{"dataset_id": "d"}', headers=headers), 404)


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
def test_no_body_at_all_is_a_validation_error(client: TestClient, headers: dict[str, str]) -> None:
    assert "required" in detail_of(client.post("/api/start-finetuning", headers=headers), 422)


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
        (ConflictError("in use"), 409),
        (UploadTooLargeError("too large"), 413),
        (MediaTypeError("not this kind"), 415),
        (TooManyRequestsError("too often"), 429),
        (CapacityError("too much"), 503),
        (ArtifactError("altered"), 500),
        (EngineError("not loaded"), 500),
        (TrainingError("diverged"), 500),
        (SiennError("something else"), 500),
    ],
)
def test_own_error_keeps_its_message(
    client: TestClient, tracker: InProcessTracker, error: SiennError, status: int
) -> None:
    tracker.fail_with(error)
    response = client.get("/api/datasets")
    request_id = f" (request id {response.headers['x-request-id']})" if status == 500 else ""
    assert detail_of(response, status) == error.message + request_id


@pytest.mark.parametrize("kind", [CapacityError, TooManyRequestsError])
def test_lack_of_capacity_says_when_to_come_back(
    client: TestClient, tracker: InProcessTracker, kind: type[CapacityError]
) -> None:
    tracker.fail_with(kind("the job tracker is restarting", retry_after_s=7))
    assert client.get("/api/datasets").headers["retry-after"] == "7"


def test_other_errors_do_not_ask_to_come_back(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.fail_with(EngineError("not loaded"))
    assert "retry-after" not in client.get("/api/datasets").headers


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_there_whoever_refuses(status: int) -> None:
    assert int(error_response(status, "later").headers["retry-after"]) > 0


def test_unexpected_error_shows_its_request_id_and_nothing_of_its_cause(
    client: TestClient, tracker: InProcessTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.fail_with(KeyError("a secret"))
    with caplog.at_level(logging.ERROR):
        response = client.get("/api/datasets")
    detail = detail_of(response, 500)
    request_id = re.fullmatch(r"Internal error; .* request id ([0-9a-f]{32})", detail)
    assert request_id is not None
    assert response.headers["x-request-id"] == request_id[1]
    assert [request_id[1] in record.message for record in caplog.records] == [True]
    assert "KeyError: 'a secret'" in caplog.text
    assert not re.search("secret|Traceback|KeyError|\\.py", detail)


def test_own_internal_error_is_logged_with_its_trace(
    client: TestClient, tracker: InProcessTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.fail_with(ArtifactError("altered"))
    response = client.get("/api/datasets")
    assert response.headers["x-request-id"] in caplog.text
    assert "Traceback" in caplog.text


def test_error_of_a_middleware_has_the_shape(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    def failing(within: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                raise ZeroDivisionError
            await within(scope, receive, send)

        return app

    app.user_middleware.append(Middleware(failing))
    with TestClient(app) as client:
        response = client.get("/health")
    assert response.headers["x-request-id"] in detail_of(response, 500)
    assert "ZeroDivisionError" in caplog.text


def test_documented_errors_have_the_shape(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    operations = [item[method] for path, item in paths.items() if not path.startswith("/v1/") for method in item]
    errors = [
        response["content"]["application/json"]["schema"]
        for operation in operations
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]
    assert errors
    # Clients of OAuth read an error's name beside them.
    names = {schema["$ref"].rsplit("/", 1)[-1] for schema in errors}
    assert names == {"ErrorResponse", "OAuthErrorResponse"}
    assert {"detail", "status_code"} < app.openapi()["components"]["schemas"]["OAuthErrorResponse"]["properties"].keys()


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "error"),
    [
        ("GET", "/v1", b"", 404, {"type": "invalid_request_error", "param": None, "code": None}),
        ("GET", "/v1/models/nothing", b"", 404, {"param": None, "code": "model_not_found"}),
        ("DELETE", "/v1/models", b"", 405, {"param": None}),
        ("POST", "/v1/completions", b"{", 400, {"param": None}),
        ("POST", "/v1/completions", b"[" * 100_000, 400, {"param": None}),
        ("POST", "/v1/completions", b'{"prompt": "a"}', 400, {"message": "model: Field required", "param": "model"}),
        ("POST", "/v1/completions", b" " * 1_048_577, 413, {"param": None}),
    ],
)
def test_error_of_the_openai_api(
    client: TestClient, method: str, path: str, content: bytes, status: int, error: dict[str, Any]
) -> None:
    response = client.request(method, path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert error.items() <= response.json()["error"].items()


def test_body_of_another_type_is_refused_by_the_openai_api_too(client: TestClient) -> None:
    response = client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert "is not application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1x", "/api/v1/models", "/v10/models"])
def test_what_only_looks_like_the_openai_api_has_our_shape(client: TestClient, path: str) -> None:
    detail_of(client.get(path), 404)


def test_unforeseen_error_under_the_openai_api(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.fail_with(KeyError("a secret"))
    error = client.get("/v1/models").json()["error"]
    assert (error["type"], "secret" in error["message"]) == ("server_error", False)
