from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from sienn_ray.errors import ArtifactError, CapacityError, EngineError, InvalidInputError, SiennError
from sienn_ray.inference.engine import ChatMessage, FinishReason, GenerationRequest, SamplingParams
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import BASE_MODEL, FakeEngines, job_record
from tests.support.in_process_tracker import InProcessTracker

PROMPT = "What is machine learning?"


def ask(client: TestClient, **fields: Any) -> Response:
    return client.post("/api/test-model", json={"job_id": "job-1", "prompt": PROMPT, **fields})


def request_to_adapter(sampling: SamplingParams) -> GenerationRequest:
    return GenerationRequest.ask(PROMPT, adapter_id="job-1", adapter_key="adapters/job-1", sampling=sampling)


def test_adapter_and_base_model_are_asked_at_the_job_s_commit(
    client: TestClient, tracker: InProcessTracker, engines: FakeEngines
) -> None:
    job = job_record(status=JobStatus.COMPLETED, progress=100)
    tracker.put(job.model_copy(update={"id": "job-2", "config": job.config.pinned("a" * 40)}))
    for use_adapter in (True, False):
        assert ask(client, job_id="job-2", use_adapter=use_adapter).status_code == 200
    chat = {"model": "job-2", "messages": [{"role": "user", "content": PROMPT}]}
    assert client.post("/v1/chat/completions", json=chat).status_code == 200
    assert client.post("/api/compare-models", json={"job_ids": ["job-2"], "prompt": PROMPT}).status_code == 200
    assert {request.base_model_revision for _, request in engines.asked} == {"a" * 40}


@pytest.fixture(autouse=True)
def completed(tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED, progress=100))


def test_answer_has_the_fields_of_the_contract(client: TestClient, settings: Settings) -> None:
    response = ask(client)
    body = response.json()
    assert response.status_code == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body.pop("timestamp"))
    assert body == {
        "job_id": "job-1",
        "prompt": PROMPT,
        "generated_text": "A branch of artificial intelligence.",
        "model_path": f"{settings.home}/storage/adapters/job-1",
        "generation_time": 2.34,
        "rendered_prompt": "<user>What is machine learning?<assistant>",
        "prompt_tokens": 9,
        "completion_tokens": 6,
        "finish_reason": "stop",
        "adapter_cached": False,
    }


def test_defaults_are_those_of_the_contract(client: TestClient, engines: FakeEngines) -> None:
    ask(client)
    sampling = SamplingParams(
        max_new_tokens=200, temperature=0.7, top_p=0.95, repetition_penalty=1.2, do_sample=True, seed=None
    )
    assert engines.asked == [(BASE_MODEL, request_to_adapter(sampling))]


def test_every_field_reaches_the_engine(client: TestClient, engines: FakeEngines) -> None:
    fields = {
        "max_new_tokens": 20,
        "temperature": 1.5,
        "top_p": 0.5,
        "repetition_penalty": 1.0,
        "do_sample": False,
        "seed": 7,
        "top_k": 40,
        "min_p": 0.05,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    }
    ask(client, **fields, stop=["a", "b"])
    ask(client, **fields, stop="a")
    assert engines.asked == [
        (BASE_MODEL, request_to_adapter(SamplingParams(**fields, stop=stop)))  # type: ignore[arg-type]
        for stop in [("a", "b"), ("a",)]
    ]


def test_greedy_has_no_penalty_unless_one_is_given(client: TestClient, engines: FakeEngines) -> None:
    ask(client, do_sample=False)
    ask(client, do_sample=False, repetition_penalty=1.2)
    ask(client)
    assert [request.sampling.repetition_penalty for _, request in engines.asked] == [1.0, 1.2, 1.2]


def test_greedy_asks_the_engine_what_chat_asks_it(client: TestClient, engines: FakeEngines) -> None:
    messages = [{"role": "system", "content": "You are Tilda."}, {"role": "user", "content": PROMPT}]
    ask(client, do_sample=False, system="You are Tilda.", max_new_tokens=50)
    client.post(
        "/v1/chat/completions", json={"model": "job-1", "messages": messages, "temperature": 0, "max_tokens": 50}
    )
    tested, chatted = (request for _, request in engines.asked)
    assert tested.prompt == chatted.prompt == (ChatMessage("system", "You are Tilda."), ChatMessage("user", PROMPT))
    # What only samples has no say.
    assert replace(tested.sampling, temperature=1.0, top_p=1.0) == chatted.sampling


def test_a_conversation_takes_the_place_of_the_prompt(client: TestClient, engines: FakeEngines) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Why?"},
    ]
    response = client.post("/api/test-model", json={"job_id": "job-1", "messages": messages})
    assert response.json()["prompt"] == "Why?"
    assert [message.content for message in engines.asked[0][1].prompt] == ["Hi", "Hello!", "Why?"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, "give either prompt or messages"),
        (
            {"prompt": None, "messages": [{"role": "user", "content": "Hi"}], "system": "Be brief."},
            "system goes with prompt; make it the first of messages, with the role 'system'",
        ),
    ],
)
def test_a_question_is_asked_in_one_way(client: TestClient, fields: dict[str, Any], detail: str) -> None:
    response = ask(client, **fields)
    assert (response.status_code, response.json()["detail"]) == (400, detail)


def test_base_model_can_be_asked_without_the_adapter(client: TestClient, engines: FakeEngines) -> None:
    response = ask(client, use_adapter=False)
    assert response.json()["model_path"] == BASE_MODEL
    assert [(request.adapter_id, request.adapter_key) for _, request in engines.asked] == [(None, None)]


@pytest.mark.parametrize(("engine_says", "expected"), [("stop", "stop"), ("length", "length")])
def test_finish_reason_is_passed_on(
    client: TestClient, engines: FakeEngines, engine_says: FinishReason, expected: str
) -> None:
    engines.result = replace(engines.result, finish_reason=engine_says, adapter_cached=True)
    body = ask(client).json()
    assert (body["finish_reason"], body["adapter_cached"]) == (expected, True)


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("prompt", ["a", " ", "x" * 100_000, "\0", "🦙"], ["", "x" * 100_001, None, 7, ["a"]]),
        ("max_new_tokens", [10, 2000], [9, 2001, 0, -1, 10.5, None]),
        ("temperature", [0.1, 2.0, 1], [0.09, 2.01, 0, -1, None]),
        ("top_p", [0.01, 1.0], [0.0, 1.01, -0.5, None]),
        ("repetition_penalty", [0.5, 1.0, 5.0], [0.49, 5.01, 0, None]),
        ("do_sample", [True, False], ["perhaps", None, 2]),
        ("seed", [0, 2**53 - 1, None], [-1, 2**53, 0.5]),
        ("use_adapter", [True, False], ["perhaps", None]),
        ("top_k", [0, 40, 1_000_000], [-1, 0.5, None]),
        ("min_p", [0, 0.5, 1], [-0.1, 1.1, None]),
        ("presence_penalty", [-2, 0, 2.0], [-2.1, 2.1, None]),
        ("frequency_penalty", [-2, 0, 2.0], [-2.1, 2.1, None]),
        ("stop", [None, "a", [], ["a"] * 16, "", [""]], [["a"] * 17, 7, "a" * 501]),
        ("stream", [True, False], ["perhaps", None]),
        ("job_id", [], [None, 7]),
    ],
)
def test_ranges(client: TestClient, engines: FakeEngines, field: str, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside if ask(client, **{field: value}).status_code != 200] == []
    assert [value for value in outside if ask(client, **{field: value}).status_code != 422] == []
    assert len(engines.asked) == len(inside)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_temperature_is_a_finite_number(client: TestClient, number: str) -> None:
    content = f'{{"job_id": "job-1", "prompt": "a", "temperature": {number}}}'
    response = client.post("/api/test-model", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422


@pytest.mark.parametrize("missing", ["job_id", "prompt"])
def test_job_and_prompt_are_required(client: TestClient, missing: str) -> None:
    body = {"job_id": "job-1", "prompt": PROMPT}
    del body[missing]
    response = client.post("/api/test-model", json=body)
    assert (response.status_code, response.json()["detail"]) == (422, f"{missing}: Field required")


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.FAILED])
def test_only_a_completed_job_answers(
    client: TestClient, tracker: InProcessTracker, engines: FakeEngines, status: JobStatus
) -> None:
    tracker.put(job_record(status=status))
    response = ask(client)
    assert response.status_code == 400
    assert response.json()["detail"] == (
        f"Job status is '{status.value}', model testing is only available for completed jobs"
    )
    assert engines.asked == []


def test_unknown_job_is_named(client: TestClient, engines: FakeEngines) -> None:
    response = ask(client, job_id="job-2")
    assert (response.status_code, response.json()["detail"]) == (404, "Job job-2 not found")
    assert engines.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInputError("prompt has 3000 tokens"), 400),
        (ArtifactError("the file was altered"), 500),
        (EngineError("can't be loaded"), 500),
        (CapacityError("64 requests wait", retry_after_s=30), 503),
    ],
)
def test_error_of_the_engine_reaches_the_user(
    client: TestClient, engines: FakeEngines, error: SiennError, status: int
) -> None:
    engines.error = error
    response = ask(client)
    request_id = f" (request id {response.headers['x-request-id']})" if status == 500 else ""
    assert (response.status_code, response.json()["detail"]) == (status, error.message + request_id)
    assert response.headers.get("retry-after") == ("30" if status == 503 else None)


def events_of(response: Response) -> list[tuple[str, Any]]:
    """Name and data of each event; most have no name."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    lines = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    return [(fields.get("event", ""), json.loads(fields["data"])) for fields in lines]


def test_stream_has_the_pieces_and_then_what_comes_without_it(client: TestClient) -> None:
    *pieces, last = events_of(ask(client, stream=True))
    assert {name for name, _ in pieces} == {""}
    assert "".join(piece["text"] for _, piece in pieces) == "A branch of artificial intelligence."
    assert len(pieces) == 5
    expected = ask(client).json()
    assert last == ("result", {**expected, "timestamp": last[1]["timestamp"]})


def test_stream_asks_the_same(client: TestClient, engines: FakeEngines) -> None:
    ask(client, stream=True, use_adapter=False)
    ask(client, use_adapter=False)
    assert engines.asked[0] == engines.asked[1]


@pytest.mark.parametrize("error", [InvalidInputError("prompt has 3000 tokens"), CapacityError("later", 30)])
def test_stream_that_does_not_begin_has_the_status_of_its_error(
    client: TestClient, engines: FakeEngines, error: SiennError
) -> None:
    engines.error = error
    response, plain = ask(client, stream=True), ask(client)
    assert (response.status_code, response.json()) == (plain.status_code, plain.json())
    assert response.headers.get("retry-after") == plain.headers.get("retry-after")


@pytest.mark.parametrize(
    ("error", "status"), [(CapacityError("no answer within 300 s"), 503), (EngineError("out of memory"), 500)]
)
def test_stream_that_fails_on_its_way_ends_with_the_error(
    client: TestClient, engines: FakeEngines, error: SiennError, status: int
) -> None:
    engines.late_error = error
    response = ask(client, stream=True)
    assert response.status_code == 200
    (name, last) = events_of(response)[-1]
    assert (name, last["status_code"]) == ("error", status)
    assert last["detail"].startswith(error.message)
    assert engines.num_running == 0
