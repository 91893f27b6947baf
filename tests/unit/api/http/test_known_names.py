from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/api/jobs?foo=1", "query.foo: isn't known here (got '1')"),
        ("/api/jobs?statsu=running", "query.statsu: isn't known here; did you mean status? (got 'running')"),
        ("/api/datasets/d/rows?ofset=3", "query.ofset: isn't known here; did you mean offset? (got '3')"),
        ("/health?verbose=1", "query.verbose: isn't known here (got '1')"),
    ],
)
def test_a_query_parameter_that_is_unknown_is_named(client: TestClient, path: str, detail: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["detail"]) == (422, detail)


def test_clients_of_the_openai_api_send_what_they_like(client: TestClient) -> None:
    assert client.get("/v1/models?api-version=2024-06-01").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        (
            "/api/start-finetuning",
            {"dataset_id": "d", "modelname": "a/b"},
            "modelname: isn't known here; did you mean model_name? (got 'a/b')",
        ),
        (
            "/api/test-model",
            {"job_id": "j", "prompt": "a", "max_tokens": 9},
            "max_tokens: isn't known here; did you mean max_new_tokens? (got 9)",
        ),
        ("/api/test-model", {"job_id": "j", "prompt": "a", "zzz": 9}, "zzz: isn't known here (got 9)"),
    ],
)
def test_a_field_that_is_unknown_is_named_with_the_nearest(
    client: TestClient, path: str, body: dict[str, Any], detail: str
) -> None:
    response = client.post(path, json=body)
    assert (response.status_code, response.json()["detail"]) == (422, detail)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"labels": {"a b": "c"}}, "must have 1 to 63 letters, digits, '_', '.' and '-', the first no sign"),
        ({"name": "a\nb"}, "name: must have printable characters only, and no line breaks (got 'a\\nb')"),
        ({"validation_split": 0.1, "validation_dataset_id": "v"}, "validation_split and validation_dataset_id exclude"),
    ],
)
def test_faults_are_told_without_patterns_and_wrappings(
    client: TestClient, fields: dict[str, Any], detail: str
) -> None:
    said = client.post("/api/start-finetuning", json={"dataset_id": "d", **fields}).json()["detail"]
    assert detail in said
    assert not any(part in said for part in ("pattern", "Value error", "'dataset_id'"))
