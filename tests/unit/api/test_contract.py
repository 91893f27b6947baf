"""The application against the reference that clients were promised, read from the reference itself.

Each documented response is compared with a real one, field by field and type by type; each default and range of the
parameter tables with what requests are refused or do.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from httpx2 import Response
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from sienn_ray.jobs.schema import JobStatus
from tests.contract import reference
from tests.contract.reference import Endpoint, Parameter
from tests.contract.shape import faults
from tests.support.in_process import Service, running_service
from tests.support.tiny_model import CONTRACT_ID, add_to_hub_cache

ENDPOINTS = reference.endpoints()
START, ASK = "POST /api/start-finetuning", "POST /api/test-model"
EXPORT = "POST /api/export-model/{job_id}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("contract")
    add_to_hub_cache(tiny_model_folder, folder, CONTRACT_ID)
    with pytest.MonkeyPatch.context() as patch, running_service(folder, max_running_jobs=1_000) as service:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(service.app) as client:
        yield client


class Caller:
    """Makes the documented requests, each with what has to come before it."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service = service
        self.client = client

    def upload(self) -> Response:
        [csv] = reference.code_blocks("csv", reference.endpoint("POST /api/upload-dataset").text)
        return self.client.post("/api/upload-dataset", files={"file": ("conversations.csv", csv.encode())})

    def start(self, **changes: Any) -> Response:
        """The documented request; a field that is changed to Ellipsis is left out."""
        body = {**reference.endpoint(START).request, "dataset_id": self.upload().json()["dataset_id"], **changes}
        return self._post("/api/start-finetuning", body)

    def running_job(self) -> str:
        job_id = str(self.start().json()["job_id"])
        self.service.train(self.service.wait_until(job_id, JobStatus.RUNNING))
        return job_id

    def completed_job(self) -> str:
        job_id = self.running_job()
        self.service.complete(self.service.tracker.job(job_id))
        return job_id

    def ask(self, **changes: Any) -> Response:
        """The documented request, to an adapter that is there; see `start`."""
        job_id = changes.get("job_id") or self.completed_job()
        return self._post("/api/test-model", {**reference.endpoint(ASK).request, "job_id": job_id, **changes})

    def export(self, **changes: Any) -> Response:
        """The documented request, of an adapter that is there; see `start`."""
        body = {**reference.endpoint(EXPORT).request, **changes}
        return self._post(f"/api/export-model/{self.completed_job()}", body)

    def _post(self, path: str, body: dict[str, Any]) -> Response:
        return self.client.post(path, json={name: value for name, value in body.items() if value is not ...})

    def call(self, endpoint: Endpoint) -> Response:
        """The request of an endpoint, so that its response shows every documented field."""
        if str(endpoint) == "POST /api/upload-dataset":
            return self.upload()
        if str(endpoint) == START:
            return self.start()
        if endpoint.path == "/api/training-status/{job_id}":
            return self.client.get(f"/api/training-status/{self.running_job()}")
        job_id = self.completed_job()
        if str(endpoint) == ASK:
            return self.ask(job_id=job_id)
        if str(endpoint) == EXPORT:
            return self.export()
        return self.client.request(endpoint.method, endpoint.path.replace("{job_id}", job_id))


@pytest.fixture
def caller(service: Service, client: TestClient) -> Caller:
    return Caller(service, client)


def test_every_documented_endpoint_is_there(service: Service) -> None:
    operations = {
        f"{method.upper()} {path}" for path, item in service.app.openapi()["paths"].items() for method in item
    }
    assert {str(endpoint) for endpoint in reference.endpoints()} - operations == set()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_response_is_the_documented_one(caller: Caller, endpoint: Endpoint) -> None:
    response = caller.call(endpoint)
    is_created = str(endpoint) in {"POST /api/upload-dataset", START}
    assert response.status_code == (201 if is_created else 200), response.text
    if endpoint.response is not None:
        assert response.headers["content-type"] == "application/json"
        assert faults(endpoint.response, response.json()) == []


WORDS = {
    "GET /health": ["status"],
    "POST /api/upload-dataset": ["filename", "status"],
    START: ["status", "message"],
    "GET /api/training-status/{job_id}": ["status", "message"],
    ASK: ["prompt"],
}


@pytest.mark.parametrize("name", WORDS)
def test_fixed_words_are_the_documented_ones(caller: Caller, name: str) -> None:
    endpoint = reference.endpoint(name)
    body = caller.call(endpoint).json()
    assert {field: body[field] for field in WORDS[name]} == {field: endpoint.response[field] for field in WORDS[name]}


def test_list_of_jobs_has_the_documented_words(caller: Caller) -> None:
    job_id, newest_id = caller.completed_job(), caller.start().json()["job_id"]
    body = caller.client.get("/api/jobs").json()
    [documented] = reference.endpoint("GET /api/jobs").response["jobs"]
    assert body["count"] == len(body["jobs"])
    newest, job = body["jobs"][:2]
    assert (newest["job_id"], job["job_id"]) == (newest_id, job_id)
    assert {name: job[name] for name in ("status", "progress", "message")} == {
        name: documented[name] for name in ("status", "progress", "message")
    }


def test_status_values_are_the_documented_ones(caller: Caller, service: Service) -> None:
    documented = re.findall(
        r"^- `(\w+)` - ", reference.endpoint("GET /api/training-status/{job_id}").text, re.MULTILINE
    )
    job_id = caller.start().json()["job_id"]
    seen = [caller.client.get(f"/api/jobs?status={status}").status_code for status in documented]
    assert seen == [200] * len(documented)
    assert set(documented) <= set(JobStatus)
    assert service.wait_until(job_id, JobStatus.RUNNING).status in documented


def test_catalog_is_the_documented_one(client: TestClient) -> None:
    documented = reference.endpoint("GET /api/models/available").response["models"]
    models = {model["id"]: model for model in client.get("/api/models/available").json()["models"]}
    for example in documented:
        # Whether it is cached differs from machine to machine, and this catalog has a smaller one than "the smallest".
        fixed = {name: value for name, value in example.items() if "cache" not in name and name != "description"}
        assert {name: models[example["id"]][name] for name in fixed} == fixed


def test_export_formats_are_the_documented_ones(client: TestClient) -> None:
    documented = reference.endpoint("GET /api/export-formats").response["formats"]
    formats = client.get("/api/export-formats").json()["formats"]
    for name in ("name", "description", "parameters"):
        # Further formats come behind those of the contract.
        assert [each[name] for each in formats][: len(documented)] == [each[name] for each in documented]


def test_both_example_files_are_taken(caller: Caller) -> None:
    endpoint = reference.endpoint("POST /api/upload-dataset")
    [csv], [rows, _] = reference.code_blocks("csv", endpoint.text), reference.code_blocks("json", endpoint.text)
    lines = "".join(json.dumps(row) + "\n" for row in json.loads(rows))
    for filename, content in (("a.csv", csv), ("a.json", rows), ("a.jsonl", lines)):
        response = caller.client.post("/api/upload-dataset", files={"file": (filename, content.encode())})
        assert (response.status_code, response.json()["preview"]) == (201, json.loads(rows))


def test_archive_has_the_documented_files(caller: Caller) -> None:
    job_id = caller.completed_job()
    response = caller.client.get(f"/api/download-model/{job_id}")
    text = reference.endpoint("GET /api/download-model/{job_id}").text
    [media_type], [filename] = re.findall(r"Content-Type: `(.*)`", text), re.findall(r"File: `(.*)`", text)
    assert response.headers["content-type"] == media_type
    assert filename.replace("{job_id}", job_id) in response.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == re.findall(r"^- `(\w+\.\w+)` - ", text, re.MULTILINE)


def test_prometheus_text_has_the_documented_family(caller: Caller) -> None:
    caller.completed_job()
    response = caller.client.get("/api/metrics/prometheus")
    assert response.headers["content-type"].startswith("text/plain")
    [example] = reference.code_blocks("", reference.endpoint("GET /api/metrics/prometheus").text)
    [documented] = text_string_to_metric_families(example.replace("...\n", ""))
    family = next(each for each in text_string_to_metric_families(response.text) if each.name == documented.name)
    assert family.type == documented.type
    values = {sample.labels["status"]: sample.value for sample in family.samples}
    assert {sample.labels["status"] for sample in documented.samples} <= values.keys()
    num_completed = len(caller.client.get("/api/jobs?status=completed").json()["jobs"])
    assert values["completed"] == num_completed > 0


# Parameters


def send(caller: Caller, endpoint: Endpoint, **changes: Any) -> Response:
    if str(endpoint) == EXPORT:
        return caller.export(**changes)
    return caller.start(**changes) if str(endpoint) == START else caller.ask(**changes)


def effective(caller: Caller, endpoint: Endpoint, response: Response, name: str) -> Any:
    """What a parameter came to in the end: what the job trains with, or what the engine was asked."""
    if str(endpoint) == START:
        config = caller.service.tracker.job(response.json()["job_id"]).config
        return getattr(config, {"model_name": "base_model"}.get(name, name))
    return getattr(caller.service.engines.asked[-1][1].sampling, name)


def has_default(row: Any) -> bool:
    """Whether the table of a row has a column of defaults; that of exports says what each field is for."""
    return not row.values[1].is_required and str(row.values[0]) != EXPORT


ROWS = [
    pytest.param(endpoint, parameter, id=f"{endpoint.path.rsplit('/', 1)[-1]}-{parameter.name}")
    for endpoint in ENDPOINTS
    for parameter in endpoint.parameters
]
Outside = Callable[[float], float]


@pytest.mark.parametrize(("endpoint", "parameter"), [row for row in ROWS if has_default(row)])
def test_default_is_the_documented_one(caller: Caller, endpoint: Endpoint, parameter: Parameter) -> None:
    response = send(caller, endpoint, **{parameter.name: ...})
    assert response.status_code < 300, response.text
    value = effective(caller, endpoint, response, parameter.name)
    assert (value, type(value)) == (parameter.default, type(parameter.default))


@pytest.mark.parametrize("name", ["model_name", "temperature", "top_p", "top_k", "quantization"])
def test_export_can_do_without_a_field(caller: Caller, name: str) -> None:
    documented = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "quantization": "Q4_K_M"}
    response = caller.export(**{name: ...})
    assert response.status_code == 200, response.text
    options = caller.service.tracker.export(response.json()["export_id"]).options
    assert {**options.sampling.model_dump(), "quantization": options.quantization} == documented
    assert options.model_name == (
        "my-custom-model" if name != "model_name" else f"sienn-{response.json()['job_id'][:8]}"
    )


@pytest.mark.parametrize(("endpoint", "parameter"), [row for row in ROWS if row.values[1].is_required])  # type: ignore[union-attr]
def test_required_parameter_is_required(caller: Caller, endpoint: Endpoint, parameter: Parameter) -> None:
    response = send(caller, endpoint, **{parameter.name: ...})
    assert (response.status_code, response.json()["detail"]) == (422, f"{parameter.name}: Field required")


def _next(value: float, towards: float, kind: str) -> float:
    return int(value) + int(math.copysign(1, towards)) if kind == "integer" else math.nextafter(value, towards)


@pytest.mark.parametrize(("endpoint", "parameter"), [row for row in ROWS if row.values[1].limits])  # type: ignore[union-attr]
def test_range_is_the_documented_one(caller: Caller, endpoint: Endpoint, parameter: Parameter) -> None:
    assert parameter.limits is not None
    for limit, outwards in zip(parameter.limits, (-math.inf, math.inf), strict=True):
        at_limit = int(limit) if parameter.type == "integer" else limit
        response = send(caller, endpoint, **{parameter.name: at_limit})
        assert response.status_code < 300, response.text
        assert effective(caller, endpoint, response, parameter.name) == at_limit
        outside = _next(limit, outwards, parameter.type)
        response = send(caller, endpoint, **{parameter.name: outside})
        assert response.status_code == 422, f"{parameter.name}={outside!r} was taken"
        assert parameter.name in response.json()["detail"]


WRONG: dict[str, list[Any]] = {
    "string": [7, True, None, ["a"], {}],
    "integer": ["3", 3.5, True, None, [3], {}],
    "float": ["0.5", True, None, [0.5], {}],
    "boolean": ["true", 1, 0, None, [True], {}],
}


@pytest.mark.parametrize(("endpoint", "parameter"), ROWS)
def test_type_is_the_documented_one(caller: Caller, endpoint: Endpoint, parameter: Parameter) -> None:
    # What an export can do without may be null as well, as clients write it that have nothing to say.
    may_be_null = str(endpoint) == EXPORT and parameter.name in {"model_name", "quantization"}
    for value in WRONG[parameter.type]:
        if value is None and may_be_null:
            continue
        response = send(caller, endpoint, **{parameter.name: value})
        assert response.status_code == 422, f"{parameter.name}={value!r} gave {response.status_code}"


# Errors


def test_every_documented_status_is_answered(
    caller: Caller, service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = {
        int(code) for code in re.findall(r"^\| `(\d{3})` \|", reference.section("HTTP Status Codes"), re.MULTILINE)
    }
    job_id = caller.running_job()
    answers = [
        client.get("/health"),
        caller.upload(),
        caller.ask(job_id=job_id),
        client.get("/api/training-status/unknown"),
        caller.start(num_epochs=0),
    ]
    service.complete(service.tracker.job(job_id))
    monkeypatch.setattr(service.engines, "error", RuntimeError("unforeseen"))
    answers.append(caller.ask(job_id=job_id))
    assert {response.status_code for response in answers} == documented
    [example] = [json.loads(block) for block in reference.code_blocks("json", reference.section("Error Response"))]
    for response in answers:
        if response.status_code >= 400:
            assert faults(example, response.json()) == []
            assert set(response.json()) == set(example)
            assert response.json()["status_code"] == response.status_code


def test_common_errors_have_the_documented_words(caller: Caller) -> None:
    not_found, wrong_state = map(json.loads, reference.code_blocks("json", reference.section("Common Errors")))
    documented_id = not_found["detail"].split()[1]
    response = caller.start(dataset_id=documented_id)
    assert (response.status_code, response.json()) == (404, not_found)
    response = caller.ask(job_id=caller.running_job())
    assert (response.status_code, response.json()) == (400, wrong_state)


# The comparison itself


@pytest.mark.parametrize(
    ("documented", "actual", "fault"),
    [
        ({"a": 1}, {}, "response.a is missing"),
        ({"a": 1}, {"a": 1.0}, "response.a is a float"),
        ({"a": 1.5}, {"a": 1}, "response.a is an integer"),
        ({"a": 1}, {"a": True}, "response.a is a boolean"),
        ({"a": "x"}, {"a": None}, "response.a is null"),
        ({"a": [{"b": 1}]}, {"a": []}, "response.a is empty"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}, {}]}, "response.a[1].b is missing"),
        ({"a": "2025-11-12T10:30:00.000Z"}, {"a": "2025-11-12T10:30:00Z"}, "documented is a timestamp"),
        ({"a": "a1b2c3d4-5678-90ef-ghij-klmnopqrstuv"}, {"a": "job-1"}, "documented is a UUID"),
        ({"a": "f8e7d3b2-..."}, {"a": "dataset"}, "documented is a UUID"),
        ({"a": {"b": 1}}, {"a": [1]}, "response.a is a list"),
    ],
)
def test_differences_are_found(documented: Any, actual: Any, fault: str) -> None:
    assert [each for each in faults(documented, actual) if fault in each]


@pytest.mark.parametrize(
    ("documented", "actual"),
    [
        ({"a": 1}, {"a": 2, "b": 3}),
        ([{"a": 1, "note": "x"}, {"a": None}], [{"a": None}, {"a": 3}]),
        ({"a": "f8e7d3b2-..."}, {"a": "f8e7d3b2-1234-5678-9abc-def012345678"}),
    ],
)
def test_what_is_documented_is_no_difference(documented: Any, actual: Any) -> None:
    assert faults(documented, actual) == []
