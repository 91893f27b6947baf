from __future__ import annotations

from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from sienn_ray.errors import CapacityError, InvalidInputError
from sienn_ray.inference.engine import ChatMessage, GenerationRequest
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import BASE_MODEL, FakeEngines, job_record
from tests.support.in_process_tracker import InProcessTracker

PROMPT = "What is machine learning?"


def compare(client: TestClient, *job_ids: str, **fields: Any) -> Response:
    return client.post("/api/compare-models", json={"job_ids": list(job_ids), "prompt": PROMPT, **fields})


def job_of(base_model: str, **fields: Any) -> JobRecord:
    job = job_record(**fields)
    return job.model_copy(update={"config": job.config.model_copy(update={"base_model": base_model})})


@pytest.fixture(autouse=True)
def completed(tracker: InProcessTracker) -> None:
    tracker.put(*(job_record(id=f"job-{number}", status=JobStatus.COMPLETED) for number in range(1, 6)))


def test_base_model_and_adapters_answer_in_their_order(
    client: TestClient, engines: FakeEngines, settings: Settings
) -> None:
    body = compare(client, "job-2", "job-1", seed=3).json()
    assert body["base_model"] == BASE_MODEL
    assert [answer["job_id"] for answer in body["answers"]] == [None, "job-2", "job-1"]
    paths = [BASE_MODEL, f"{settings.home}/storage/adapters/job-2", f"{settings.home}/storage/adapters/job-1"]
    assert [answer["model_path"] for answer in body["answers"]] == paths
    assert [(request.adapter_id, request.sampling.seed) for _, request in engines.asked] == [
        (None, 3),
        ("job-2", 3),
        ("job-1", 3),
    ]


def test_an_answer_has_the_fields_of_a_tested_model(client: TestClient) -> None:
    [_, answer] = compare(client, "job-1").json()["answers"]
    tested = client.post("/api/test-model", json={"job_id": "job-1", "prompt": PROMPT}).json()
    assert answer == {**tested, "timestamp": answer["timestamp"]}


def test_messages_take_the_place_of_a_prompt(client: TestClient, engines: FakeEngines) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    response = compare(client, "job-1", prompt=None, messages=messages)
    assert response.json()["answers"][0]["prompt"] == "Why?"
    assert engines.asked[0][1].prompt == (ChatMessage("system", "Be brief."), ChatMessage("user", "Why?"))


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (CapacityError("64 requests wait"), 503, "64 requests wait"),
        (InvalidInputError("too long"), 400, "too long"),
        (KeyError("a secret"), 500, "Internal error"),
    ],
    ids=repr,
)
def test_one_that_fails_has_its_error_and_the_others_answer(
    client: TestClient, engines: FakeEngines, error: Exception, status: int, detail: str
) -> None:
    def error_of(request: GenerationRequest) -> Exception | None:
        return error if request.adapter_id == "job-2" else None

    engines.error_of = error_of
    response = compare(client, "job-1", "job-2", "job-3")
    base, first, second, third = response.json()["answers"]
    assert response.status_code == 200
    assert set(second) == {"job_id", "model_path", "error"}
    assert second["error"]["status_code"] == status
    assert second["error"]["detail"].startswith(detail)
    assert {answer["generated_text"] for answer in (base, first, third)} == {engines.result.text}


def test_jobs_that_are_not_completed_are_named(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(id="job-6", status=JobStatus.RUNNING), job_record(id="job-7", status=JobStatus.FAILED))
    response = compare(client, "job-1", "job-6", "job-7")
    assert response.status_code == 400
    expected = "only completed jobs can be compared: job job-6 is 'running', job job-7 is 'failed'"
    assert response.json()["detail"] == expected


def test_adapters_of_several_base_models_are_named(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_of("gpt2", id="job-6", status=JobStatus.COMPLETED))
    response = compare(client, "job-1", "job-6")
    assert response.status_code == 400
    assert response.json()["detail"].endswith(f"job job-1 is of {BASE_MODEL}, job job-6 is of gpt2")


def test_unknown_job_is_named(client: TestClient, engines: FakeEngines) -> None:
    response = compare(client, "job-1", "nothing")
    assert (response.status_code, response.json()["detail"]) == (404, "Job nothing not found")
    assert engines.asked == []


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"job_ids": []}, "job_ids"),
        ({"job_ids": [f"job-{number}" for number in range(1, 6)]}, "job_ids"),
        ({"prompt": ""}, "prompt"),
        ({"temperature": 3}, "temperature"),
        ({"stream": True}, "stream"),
    ],
    ids=str,
)
def test_what_is_refused(client: TestClient, fields: dict[str, Any], part: str) -> None:
    response = compare(client, "job-1", **fields)
    assert response.status_code == 422
    assert part in response.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"job_ids": ["job-1", "job-1"]}, "names a job twice"),
        ({"prompt": None}, "either prompt or messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "either prompt or messages"),
    ],
    ids=str,
)
def test_what_contradicts_itself(client: TestClient, fields: dict[str, Any], part: str) -> None:
    response = compare(client, "job-1", **fields)
    assert response.status_code == 400
    assert part in response.json()["detail"]
