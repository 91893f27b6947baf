"""Engines come and go: started when asked for, idle, loaded ahead, and killed while they answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.service import ROWS, Service, running_service, wait_for
from tests.tiny_model import TINY_ID

IDLE_S = 3.0
PROMPT = "What is the code word of room 3?"
# More than the 64 that wait and fewer than the 96 that are taken.
NUM_PLAIN, NUM_STREAMS = 70, 16
LONG_ANSWER = {"max_new_tokens": 300, "do_sample": False, "repetition_penalty": 1.0}
NUM_UPDATED = 48


@pytest.fixture(scope="module")
def resting(tmp_path_factory: pytest.TempPathFactory, hub_home: Path) -> Iterator[Service]:
    """A service whose engines end soon after their last answer."""
    settings = {"SIENN_ENGINE_IDLE_TIMEOUT_S": str(IDLE_S)}
    with running_service(tmp_path_factory.mktemp("resting"), hub_home, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def resting_job(resting: Service) -> str:
    job_id = resting.start(resting.upload(ROWS), num_epochs=1, batch_size=8)
    resting.wait_for_end(job_id)
    return job_id


def replicas(service: Service) -> list[Any]:
    return service.processes(f"ray::ServeReplica:engine-{TINY_ID.replace('/', '--')}")


def engine_state(service: Service) -> Any:
    (engine,) = service.get("/api/health/services")["services"]["engines"]["engines"]
    return engine["state"], engine["num_replicas"]


def test_an_idle_engine_costs_nothing_and_comes_back(resting: Service, resting_job: str) -> None:
    first = resting.ask(resting_job, PROMPT)["generated_text"]
    wait_for(lambda: not replicas(resting), "the end of an idle engine", 60.0)
    assert engine_state(resting) == ("idle", 0)
    assert resting.ask(resting_job, PROMPT)["generated_text"] == first


def test_a_caller_who_does_not_wait_is_told_to_come_back(resting: Service, resting_job: str) -> None:
    wait_for(lambda: not replicas(resting), "the end of an idle engine", 60.0)
    body = {"job_id": resting_job, "prompt": PROMPT}
    ask = {"json": body, "headers": {"Prefer": "wait=0"}, "timeout": 30.0}
    refused = httpx2.post(f"{resting.url}/api/test-model", **ask)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "is still loading" in refused.json()["detail"]
    assert resting.get("/health")["status"] == "ok"
    # Nobody waits for it, and still it loads.
    wait_for(lambda: httpx2.post(f"{resting.url}/api/test-model", **ask).is_success, "the engine", 60.0)


def test_an_engine_goes_on_starting_when_the_first_who_asked_has_left(resting: Service, resting_job: str) -> None:
    wait_for(lambda: not replicas(resting), "the end of an idle engine", 60.0)
    body = {"job_id": resting_job, "prompt": PROMPT}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(httpx2.post, f"{resting.url}/api/test-model", json=body, timeout=4.0)
        wait_for(lambda: replicas(resting), "the start that the first one causes", 60.0)
        others = [pool.submit(resting.ask, resting_job, PROMPT) for _ in range(3)]
        assert isinstance(first.exception(), httpx2.ReadTimeout)
        answers = {each.result()["generated_text"] for each in others}
    assert len(answers) == 1


def test_an_adapter_is_loaded_before_it_is_asked_for(service: Service, completed_job: str) -> None:
    service.ask(completed_job, PROMPT)  # so that an engine runs
    job_id = service.start(service.upload(ROWS), num_epochs=1, batch_size=8)
    service.wait_for_end(job_id)
    wait_for(lambda: f"has loaded adapter {job_id}" in service.driver_logs_of(job_id), "the load", 60.0)
    assert service.ask(job_id, PROMPT)["adapter_cached"] is True


def test_a_killed_replica_loses_no_request(service: Service, completed_job: str) -> None:
    expected = service.ask(completed_job, PROMPT, **LONG_ANSWER)["generated_text"]
    begun = threading.Semaphore(0)

    def ask(_: int) -> str:
        return str(service.ask(completed_job, PROMPT, **LONG_ANSWER)["generated_text"])

    def stream(_: int) -> tuple[str, str]:
        """The text so far, and the last event's name."""
        body = {"job_id": completed_job, "prompt": PROMPT, "stream": True, **LONG_ANSWER}
        text, name = "", ""
        with httpx2.stream("POST", f"{service.url}/api/test-model", json=body, timeout=300.0) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: ") and not name:
                    if not text:
                        begun.release()
                    text += json.loads(line.removeprefix("data: "))["text"]
        return text, name

    (replica,) = replicas(service)
    with ThreadPoolExecutor(NUM_PLAIN + NUM_STREAMS) as pool:
        streams = [pool.submit(stream, number) for number in range(NUM_STREAMS)]
        plain = [pool.submit(ask, number) for number in range(NUM_PLAIN)]
        assert begun.acquire(timeout=120.0)
        replica.kill()
        answers = [each.result() for each in plain]
        ends = [each.result() for each in streams]
    assert answers == [expected] * NUM_PLAIN
    assert {name for _, name in ends} <= {"result", "error"}
    assert all(text == expected for text, name in ends if name == "result")
    assert any(name == "error" for _, name in ends)  # at least the one that had begun
    (successor,) = replicas(service)
    assert successor.pid != replica.pid


def test_an_updated_engine_loses_no_request(service: Service, completed_job: str) -> None:
    expected = service.ask(completed_job, PROMPT, **LONG_ANSWER)["generated_text"]
    (before,) = replicas(service)
    is_updated = threading.Event()

    def ask_until_it_is_updated(_: int) -> list[str]:
        answers = []
        while not is_updated.is_set():
            answers.append(service.ask(completed_job, PROMPT, **LONG_ANSWER)["generated_text"])
        return answers

    with ThreadPoolExecutor(NUM_UPDATED) as pool:
        clients = [pool.submit(ask_until_it_is_updated, number) for number in range(NUM_UPDATED)]
        try:
            service.on_ray(
                "from ray import serve\n"
                "from deployments.engine import build_engine\n"
                "from sienn_ray.inference.applications import application_name\n"
                "from sienn_ray.settings import Settings\n"
                f"engine = build_engine({TINY_ID!r}, Settings(engine_max_batch=8))\n"
                f"serve.run(engine, name=application_name({TINY_ID!r}), route_prefix=None)"
            )
        finally:
            is_updated.set()
        answers = [answer for client in clients for answer in client.result()]
    assert answers == [expected] * len(answers)
    assert len(answers) >= NUM_UPDATED
    wait_for(lambda: not before.is_running(), "the end of the old replica", 60.0)
    (after,) = replicas(service)
    assert after.pid != before.pid


def test_requests_go_to_the_replica_that_has_their_adapter(tmp_path: Path, hub_home: Path) -> None:
    settings = {"SIENN_ENGINE_MIN_REPLICAS": "2", "SIENN_ENGINE_MAX_REPLICAS": "2"}
    with running_service(tmp_path / "pair", hub_home, **settings) as pair:
        dataset_id = pair.upload(ROWS)
        first_job = pair.start(dataset_id, num_epochs=1, batch_size=8)
        pair.wait_for_end(first_job)
        pair.ask(first_job, PROMPT)
        wait_for(lambda: engine_state(pair) == ("running", 2), "both replicas", 120.0)
        job_id = pair.start(dataset_id, num_epochs=1, batch_size=8)
        pair.wait_for_end(job_id)
        wait_for(lambda: f"has loaded adapter {job_id}" in pair.driver_logs_of(job_id), "the load", 60.0)
        # A replica without the adapter would load it, and say that it wasn't there.
        assert all(pair.ask(job_id, PROMPT)["adapter_cached"] for _ in range(12))
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda _: pair.ask(job_id, PROMPT), range(24)))
        assert all(answer["adapter_cached"] for answer in together)
