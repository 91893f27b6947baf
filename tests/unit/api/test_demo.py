"""The chat page of the reference's front end, which names no job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.catalog import cached_size_bytes
from sienn_ray.inference.engine import SamplingParams
from sienn_ray.jobs.schema import JobStatus, utc_now
from sienn_ray.settings import Settings
from tests.support.fakes_api import FakeEngines, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker

PAGE = {"prompt": "What is machine learning?", "max_new_tokens": 50, "temperature": 0.5}


def ask(client: TestClient, **fields: Any) -> dict[str, Any]:
    response = client.post("/api/demo/test-tinyllama", json={**PAGE, **fields})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_the_newest_adapter_answers(client: TestClient, tracker: InProcessTracker, engines: FakeEngines) -> None:
    now = utc_now()
    for age, status in ((2, JobStatus.COMPLETED), (1, JobStatus.COMPLETED), (0, JobStatus.RUNNING)):
        tracker.put(job_record(id=f"job-{age}", status=status, created_at=now - timedelta(days=age)))
    tracker.put(job_record(id="job-of-ada", status=JobStatus.COMPLETED, created_at=now, owner="ada"))
    body = ask(client)
    assert body["job_id"] == "job-1"
    assert body["response"] == body["generated_text"] == "A branch of artificial intelligence."
    (base_model, request) = engines.asked[-1]
    assert base_model == body["model_name"]
    assert request.adapter_id == "job-1"
    assert request.sampling == SamplingParams(
        max_new_tokens=50, temperature=0.5, top_p=0.95, repetition_penalty=1.2, do_sample=True
    )


@pytest.mark.usefixtures("cached_base_model")
def test_without_an_adapter_a_base_model_of_the_catalog_answers(client: TestClient, engines: FakeEngines) -> None:
    body = ask(client)
    assert (body["job_id"], engines.asked[-1][1].adapter_id) == (None, None)
    # One that is here: that of the contract was put into the cache, and a smaller one may be installed as a package.
    assert body["model_path"] == body["model_name"]
    assert cached_size_bytes(body["model_name"]) is not None


@pytest.mark.usefixtures("cached_base_model")
def test_only_a_base_model_that_is_allowed_answers(settings: Settings, engines: FakeEngines) -> None:
    only = settings.model_copy(update={"allowed_base_models": ("nobody/*",)})
    with TestClient(create_app(fake_backends(only, engines=engines)), base_url="http://localhost") as client:
        response = client.post("/api/demo/test-tinyllama", json=PAGE)
    assert response.status_code == 400
    assert "isn't allowed here" in response.json()["detail"]


def test_fields_that_nobody_knows_are_ignored_and_others_checked(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED))
    ask(client, model="TinyLlama", length_penalty=1.0)
    for wrong in ({"prompt": ""}, {"prompt": None}, {"temperature": 9}):
        assert client.post("/api/demo/test-tinyllama", json={**PAGE, **wrong}).status_code == 422


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_it_is_asked_with_post(client: TestClient, method: str) -> None:
    assert client.request(method, "/api/demo/test-tinyllama").status_code == 405
