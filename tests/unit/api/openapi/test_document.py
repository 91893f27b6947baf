"""The OpenAPI document is the committed one, breaks no client unnoticed, and explains every field."""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.testclient import TestClient

from sienn_ray.api.http.errors import documented
from sienn_ray.api.openapi.document import OPENAI_TAG, operations_of
from sienn_ray.api.schemas.common import DATASET_ID, JOB_ID
from sienn_ray.errors import CapacityError
from tests.support.in_process_tracker import InProcessTracker
from tools.openapi_changes import changes
from tools.openapi_document import COMMAND, PAGE, document, render

Json = dict[str, Any]
ERROR = {"$ref": "#/components/schemas/ErrorResponse"}
OAUTH_ERROR = {"$ref": "#/components/schemas/OAuthErrorResponse"}
OPENAI_ERROR = {"$ref": "#/components/schemas/OpenAiErrorResponse"}


@pytest.fixture(scope="module")
def openapi() -> Json:
    return document()


def test_document_is_the_committed_one(openapi: Json) -> None:
    committed = PAGE.read_text()
    if committed == render(openapi):
        return
    found = changes(json.loads(committed), openapi)
    lines = difflib.unified_diff(
        committed.splitlines(), render(openapi).splitlines(), PAGE.name, "application", "", "", 2
    )
    report = [
        f"docs/{PAGE.name} is not what the application says; if the change is meant, run `{COMMAND}`.",
        f"Breaks clients: {found.breaking or 'nothing'}",
        f"Adds: {found.additions or 'nothing'}",
        f"Renames: {found.renames or 'nothing'}",
        *lines,
    ]
    pytest.fail("\n".join(report), pytrace=False)


def test_document_does_not_depend_on_the_deployment(openapi: Json, app: FastAPI) -> None:
    assert app.openapi() == openapi
    assert "servers" not in openapi


def resolved(schema: Json, openapi: Json) -> Json:
    """A schema without its reference; what stands beside the reference comes first."""
    if "$ref" not in schema:
        return schema
    return {**openapi["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], **schema}


def has_example(schema: Json, openapi: Json) -> bool:
    """Whether an example of a value is there, or follows from the schema."""
    target = resolved(schema, openapi)
    if schema.get("examples") or "enum" in target or "const" in target or ("$ref" in schema and "properties" in target):
        return True
    alternatives = target.get("anyOf", []) + target.get("oneOf", [])
    if alternatives:
        return any(has_example(inner, openapi) for inner in alternatives)
    return "$ref" in target.get("items", {})


def described_parts(openapi: Json) -> Iterator[tuple[str, Json]]:
    """Every property of every schema and every parameter, by name."""
    for name, schema in openapi["components"]["schemas"].items():
        for field, inner in schema.get("properties", {}).items():
            yield f"{name}.{field}", inner
    for operation in operations_of(openapi):
        for parameter in operation.get("parameters", []):
            name = f"{operation['operationId']} {parameter['in']} {parameter['name']}"
            yield name, {**parameter["schema"], "description": parameter.get("description", "")}
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            for field, inner in content["schema"].get("properties", {}).items():
                yield f"{operation['operationId']} {media_type} {field}", inner


def test_every_field_is_described(openapi: Json) -> None:
    assert [name for name, part in described_parts(openapi) if not resolved(part, openapi).get("description")] == []


def test_every_field_has_an_example(openapi: Json) -> None:
    is_file = {"contentMediaType", "contentEncoding"}
    parts = [
        name
        for name, part in described_parts(openapi)
        if not has_example(part, openapi) and part.get("format") != "binary" and not is_file & part.keys()
    ]
    assert parts == []


def test_every_operation_is_described(openapi: Json) -> None:
    tags = {tag["name"] for tag in openapi["tags"]}
    assert all(tag["description"] for tag in openapi["tags"])
    for operation in operations_of(openapi):
        assert operation["summary"], operation
        assert operation["description"], operation
        assert set(operation["tags"]) <= tags
        assert len(operation["tags"]) == 1
        assert all(response["description"] for response in operation["responses"].values())


def test_operation_ids_are_names_of_functions(openapi: Json) -> None:
    ids = [operation["operationId"] for operation in operations_of(openapi)]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


def is_openai(operation: Json) -> bool:
    return bool(operation["tags"] == [OPENAI_TAG])


def test_part_that_is_the_openai_apis_is_under_one_prefix(openapi: Json) -> None:
    for path, item in openapi["paths"].items():
        assert {is_openai(operation) for operation in item.values()} == {path.startswith("/v1/")}


def test_errors_have_the_schema_of_their_part_and_an_example(openapi: Json) -> None:
    assert not {"HTTPValidationError", "ValidationError"} & openapi["components"]["schemas"].keys()
    for operation in operations_of(openapi):
        errors = {status: response for status, response in operation["responses"].items() if int(status) >= 400}
        assert "500" in errors
        for status, response in errors.items():
            assert list(response["content"]) == ["application/json"]
            content = response["content"]["application/json"]
            ours = OAUTH_ERROR if operation["operationId"] == "issue_token" else ERROR
            assert content["schema"] == (OPENAI_ERROR if is_openai(operation) else ours)
            if is_openai(operation):
                assert set(content["example"]["error"]) == {"message", "type", "param", "code"}
            else:
                assert content["example"]["status_code"] == int(status)


def test_meaning_of_an_error_is_more_than_the_name_of_its_status(openapi: Json) -> None:
    for operation in operations_of(openapi):
        for status, response in operation["responses"].items():
            assert response["description"] != HTTPStatus(int(status)).phrase, (operation["operationId"], status)


def test_operation_with_a_json_body_can_be_refused_for_it(openapi: Json) -> None:
    for operation in operations_of(openapi):
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            invalid = "400" if is_openai(operation) else "422"
            assert {"413", "415", invalid} <= operation["responses"].keys(), operation["operationId"]


def test_every_response_names_its_headers(openapi: Json) -> None:
    for operation in operations_of(openapi):
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"]
            assert ("Retry-After" in response["headers"]) == (status in {"429", "503"})


@pytest.mark.parametrize("error", [CapacityError("the job tracker is restarting"), KeyError("unforeseen")], ids=repr)
def test_status_is_documented_when_the_tracker_fails(
    openapi: Json, app: FastAPI, tracker: InProcessTracker, cached_base_model: str, error: Exception
) -> None:
    tracker.fail_with(error)
    examples = {
        "start_finetuning": {"dataset_id": DATASET_ID},
        "test_model": {"job_id": JOB_ID, "prompt": "a"},
        "compare_models": {"job_ids": [JOB_ID], "prompt": "a"},
        "create_chat_completion": {"model": JOB_ID, "messages": [{"role": "user", "content": "a"}]},
        "create_completion": {"model": JOB_ID, "prompt": "a"},
    }
    with TestClient(app) as client:
        for path, item in openapi["paths"].items():
            for method, operation in item.items():
                body: Json = {"json": examples.get(operation["operationId"])}
                if "dataset" in path and path.startswith(("/api/upload", "/api/validate")):
                    body = {"files": {"file": ("rows.csv", b"text\nonce upon a time\n")}}
                url = path.replace("{dataset_id}", DATASET_ID).replace("{job_id}", JOB_ID).replace("{model}", JOB_ID)
                response = client.request(method, url, **body)
                assert str(response.status_code) in operation["responses"], f"{method} {path}: {response.text}"
                if response.status_code >= 400:
                    ours = {"detail", "status_code"}
                    if operation["operationId"] == "issue_token":
                        ours |= {"error", "error_description"}
                    assert set(response.json()) == ({"error"} if is_openai(operation) else ours)


def test_links_lead_from_an_upload_to_the_end_of_a_job(openapi: Json) -> None:
    by_id = {operation["operationId"]: operation for operation in operations_of(openapi)}
    uploaded = by_id["upload_dataset"]["responses"]["201"]["links"]
    started = by_id["start_finetuning"]["responses"]["201"]["links"]
    assert {"start_finetuning", "get_dataset", "dataset_statistics", "delete_dataset"} <= uploaded.keys()
    assert {"training_status", "cancel_job", "delete_job", "job_events", "job_metrics", "job_logs"} <= started.keys()
    for operation in by_id.values():
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                target = by_id[link["operationId"]]
                assert (
                    link.get("parameters", {}).keys() <= {parameter["name"] for parameter in target["parameters"]}
                    if ("parameters" in link)
                    else "requestBody" in link
                )


def _set(path: str, value: Any) -> Callable[[Json], None]:
    """Change one place of a document; `None` removes it."""
    *holders, last = path.split("|")

    def change(openapi: Json) -> None:
        target: Any = openapi
        for key in holders:
            target = target[key]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return change


_SCHEMAS = "components|schemas|"
_START = "paths|/api/start-finetuning|post"


@pytest.mark.parametrize(
    ("change", "breaking"),
    [
        (_set("paths|/health", None), "GET /health is gone"),
        (_set("paths|/api/jobs/{job_id}|delete", None), "DELETE /api/jobs/{job_id} is gone"),
        (_set(f"{_START}|operationId", "start"), "the operation id start_finetuning is start now"),
        (_set(f"{_START}|responses|201", None), "POST /api/start-finetuning: status 201 is gone"),
        (_set(f"{_SCHEMAS}StartFinetuningRequest|properties|seed", None), ".seed is not taken any more"),
        (
            _set(f"{_SCHEMAS}StartFinetuningRequest|required", ["dataset_id", "num_epochs"]),
            ".num_epochs is required now",
        ),
        (
            _set(f"{_SCHEMAS}StartFinetuningRequest|properties|num_epochs|type", "string"),
            "does not take integer any more",
        ),
        (_set(f"{_SCHEMAS}StartFinetuningRequest|properties|num_epochs|maximum", 9), "has a narrower maximum"),
        (_set(f"{_SCHEMAS}StartFinetuningRequest|properties|num_epochs|minimum", 2), "has a narrower minimum"),
        (_set(f"{_SCHEMAS}StartFinetuningRequest|properties|lr_scheduler|enum", ["cosine"]), "takes 'cosine' alone"),
        (_set(f"{_SCHEMAS}StartFinetuningResponse|properties|job_id", None), "201: application/json .job_id is gone"),
        (_set(f"{_SCHEMAS}StartFinetuningResponse|properties|job_id|type", "integer"), ".job_id may be integer now"),
        (_set(f"{_SCHEMAS}StartFinetuningResponse|required", ["status"]), ".job_id may be missing now"),
        (_set(f"{_SCHEMAS}JobList|properties|jobs|items", {"type": "string"}), ".jobs[].job_id is gone"),
        (_set("paths|/api/jobs|get|parameters", []), "query limit is not taken any more"),
    ],
)
def test_change_that_breaks_clients_is_named(openapi: Json, change: Callable[[Json], None], breaking: str) -> None:
    changed = copy.deepcopy(openapi)
    change(changed)
    assert [sentence for sentence in changes(openapi, changed).breaking if breaking in sentence]


@pytest.mark.parametrize(
    ("change", "addition"),
    [
        (_set("paths|/health", None), "GET /health is new"),
        (_set(f"{_START}|responses|429", None), "status 429 is new"),
        (_set(f"{_SCHEMAS}StartFinetuningRequest|properties|seed", None), ".seed is new"),
        (_set(f"{_SCHEMAS}StartFinetuningResponse|properties|job_id", None), ".job_id is new"),
        (_set("paths|/api/jobs|get|parameters", []), "query limit is new"),
    ],
)
def test_addition_breaks_nobody(openapi: Json, change: Callable[[Json], None], addition: str) -> None:
    earlier = copy.deepcopy(openapi)
    change(earlier)
    found = changes(earlier, openapi)
    assert found.breaking == []
    assert [sentence for sentence in found.additions if addition in sentence]


def test_new_required_field_breaks_clients(openapi: Json) -> None:
    earlier = copy.deepcopy(openapi)
    _set(f"{_SCHEMAS}ImportDatasetRequest|properties|source", None)(earlier)
    assert "POST /api/import-dataset: application/json .source is new" in changes(earlier, openapi).breaking


def test_schema_with_another_name_breaks_nobody_and_is_named(openapi: Json) -> None:
    name, other = '"JobCurves"', '"JobMetricsCurves"'
    reference = "#/components/schemas/"
    text = json.dumps(openapi).replace(f"{reference}JobCurves", f"{reference}JobMetricsCurves")
    found = changes(openapi, json.loads(text.replace(name, other)))
    assert (found.breaking, found.additions) == ([], [])
    assert found.renames == ["the schema JobCurves is JobMetricsCurves now"]


def test_names_of_schemas_say_nothing_of_modules(openapi: Json) -> None:
    assert [name for name in openapi["components"]["schemas"] if not re.fullmatch(r"[A-Z][A-Za-z]+", name)] == []


class Twin(BaseModel):
    """A class whose schema has the title of another one."""

    model_config = ConfigDict(title="JobCurves")


def test_schemas_with_one_title_are_named(app: FastAPI) -> None:
    @app.get("/api/twin", tags=["Models"], summary="A twin")
    def twin() -> Twin:
        return Twin()

    with pytest.raises(ValueError, match="JobCurves, Twin"):
        app.openapi()


def test_any_status_can_be_documented(app: FastAPI) -> None:
    responses = documented(HTTPStatus.IM_A_TEAPOT)

    @app.get("/api/secret", tags=["Models"], summary="A secret", responses=responses)
    def secret() -> str:
        return "secret"

    error = app.openapi()["paths"]["/api/secret"]["get"]["responses"]["418"]
    assert error["description"] == "I'm a Teapot"
    assert error["content"]["application/json"]["example"] == {"detail": "I'm a Teapot", "status_code": 418}


def test_words_alone_break_nobody(openapi: Json) -> None:
    changed = copy.deepcopy(openapi)
    _set("info|description", "other words")(changed)
    _set(f"{_SCHEMAS}StartFinetuningRequest|properties|seed|description", "other words")(changed)
    found = changes(openapi, changed)
    assert (found.breaking, found.additions) == ([], [])
