from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.answers.start_wait import wait_of
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.schema import JobStatus
from tests.support.fakes_api import FakeEngines, job_record
from tests.support.in_process_tracker import InProcessTracker

MESSAGES = [{"role": "user", "content": "Why?"}]
ASKING: list[tuple[str, dict[str, Any]]] = [
    ("/api/test-model", {"job_id": "job-1", "prompt": "Why?"}),
    ("/api/test-model", {"job_id": "job-1", "prompt": "Why?", "stream": True}),
    ("/v1/chat/completions", {"model": "job-1", "messages": MESSAGES}),
    ("/v1/chat/completions", {"model": "job-1", "messages": MESSAGES, "stream": True}),
    ("/v1/completions", {"model": "job-1", "prompt": "Why?"}),
    ("/v1/completions", {"model": "job-1", "prompt": "Why?", "stream": True}),
]


@pytest.fixture(autouse=True)
def completed(tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED, progress=100))


@pytest.mark.parametrize(("path", "body"), ASKING)
def test_wait_reaches_the_engines(client: TestClient, engines: FakeEngines, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, json=body, headers={"Prefer": "respond-async, wait=3"}).is_success
    assert client.post(path, json=body).is_success
    assert engines.start_waits == [3.0, None]


def test_wait_is_for_all_who_are_compared(client: TestClient, engines: FakeEngines) -> None:
    body = {"job_ids": ["job-1"], "prompt": "Why?"}
    assert client.post("/api/compare-models", json=body, headers={"Prefer": "wait=0"}).is_success
    assert engines.start_waits == [0.0, 0.0]


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "1234567", "٣"])
def test_wait_that_is_no_number_is_refused(client: TestClient, engines: FakeEngines, value: str) -> None:
    headers = {b"Prefer": f"wait={value}".encode()}
    response = client.post("/api/test-model", json=ASKING[0][1], headers=headers)
    assert response.status_code == 400
    assert "as in `Prefer: wait=30`" in response.json()["detail"]
    assert engines.asked == []


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("", None),
        ("return=minimal", None),
        ("waiting=3", None),
        ('Wait = "20"; foo=bar', 20.0),
        ("respond-async, wait=5, wait=6", 5.0),
    ],
)
def test_wait_among_other_preferences(prefer: str, wait_s: float | None) -> None:
    assert wait_of(prefer) == wait_s


def test_wrong_wait_names_itself() -> None:
    with pytest.raises(InvalidInputError, match="'wait=soon' has to be a whole number of seconds"):
        wait_of("wait=soon")
