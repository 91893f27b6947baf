"""What clients of the OpenAI API send beside what they mean: it says nothing, or is named."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import ContextLengthError
from sienn_ray.inference.engine import ChatMessage
from tests.support.fakes_api import FakeEngines

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
USER = {"role": "user", "content": "Is the bakery open?"}


def ask(client: TestClient, *messages: Any, **fields: Any) -> Any:
    return client.post("/v1/chat/completions", json={"model": MODEL, "messages": list(messages), **fields})


def heard(engines: FakeEngines) -> tuple[ChatMessage, ...]:
    ((_, request),) = engines.asked
    assert isinstance(request.prompt, tuple)
    return request.prompt


def test_null_says_nothing_of_any_field(client: TestClient, engines: FakeEngines) -> None:
    nulls = {"seed": None, "reasoning_effort": None, "audio": None, "a_field_of_next_year": None}
    answer = ask(client, {**USER, "name": None, "cache_control": None}, **nulls)
    assert answer.status_code == 200, answer.text
    assert heard(engines) == (ChatMessage("user", "Is the bakery open?"),)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ([], ""),
        (["a", "b"], "a\nb"),
        ([[{"type": "text", "text": "a"}, "b"], {"type": "text", "text": "c"}], "a\nb\nc"),
    ],
)
def test_contents_come_in_many_forms(client: TestClient, engines: FakeEngines, content: Any, text: str) -> None:
    answer = ask(client, USER, {"role": "assistant", "content": content}, USER)
    assert answer.status_code == 200, answer.text
    assert heard(engines)[1] == ChatMessage("assistant", text)


def test_answers_are_sent_back_as_they_came(client: TestClient, engines: FakeEngines) -> None:
    echoed: dict[str, Any] = {"id": "msg_1", "reasoning_content": "It is noon.", "tool_calls": [], "refusal": None}
    answer = ask(client, USER, {"role": "assistant", "content": "Yes.", **echoed}, USER)
    assert answer.status_code == 200, answer.text
    assert heard(engines)[1] == ChatMessage("assistant", "Yes.")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "6-18"},
        {"role": "function", "name": "hours", "content": "6-18"},
    ],
)
def test_tool_calls_are_named(client: TestClient, message: dict[str, Any]) -> None:
    answer = ask(client, USER, message)
    assert answer.status_code == 400
    assert "tool calls are not supported here" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(("stop", "expected"), [("", ()), (["", "User:"], ("User:",)), ([], ()), ("x", ("x",))])
def test_an_empty_stop_string_ends_nothing(
    client: TestClient, engines: FakeEngines, stop: Any, expected: tuple[str, ...]
) -> None:
    assert ask(client, USER, stop=stop).status_code == 200
    ((_, request),) = engines.asked
    assert request.sampling.stop == expected


def test_without_max_tokens_there_is_what_room_there_is(client: TestClient, engines: FakeEngines) -> None:
    ask(client, USER)
    ask(client, USER, max_tokens=7)
    (_, first), (_, second) = engines.asked
    assert (first.sampling.fits_context, second.sampling.fits_context) == (True, False)


def test_a_prompt_that_is_too_long_has_openai_s_code_and_names(client: TestClient, engines: FakeEngines) -> None:
    engines.error = ContextLengthError("prompt has 9 tokens and max_new_tokens is 5; together they exceed 8")
    error = ask(client, USER).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == "prompt has 9 tokens and max_tokens is 5; together they exceed 8"
    ours = client.post("/api/test-model", json={"job_id": "none", "prompt": "x"})
    assert "max_tokens" not in ours.text


def test_models_are_listed_with_a_slash_too(client: TestClient) -> None:
    assert client.get("/v1/models/").json() == client.get("/v1/models").json()
