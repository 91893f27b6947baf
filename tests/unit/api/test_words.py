"""Messages of invalid requests, in words that a client knows: of HTTP, JSON and this API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.unit.attacks.operations import BODIES

# Of the library that checks, and of the language.
JARGON = re.compile(
    r"Input should|Value error|should have|value_error|[Pp]ydantic|\bunion\b|literal_error|constrained|function-|"
    r"list\[|dict\[|tuple|NoneType|\bNone\b|\bTrue\b|\bFalse\b|Extra inputs|after validation|instance of|\bstr\b|"
    r"\bint\b|\bdict\b|TextPart|MessageBody|Assertion|extract fields|to parse"
)
# One of each kind of value that JSON has.
VALUES: list[Any] = [None, True, -7, 1e300, "", "x" * 3000, [], [None, 1, [2]], {}, {"a": {"b": None}}]
# Fields that are wrong at a time; an answer shows ten faults.
MANY = 8
MESSAGES: list[Any] = [None, 1, "x", [], {}, {"role": "user"}, {"content": "x"}, {"role": 1, "content": 2}]
NESTED: dict[str, list[dict[str, Any]]] = {
    "create_chat_completion": [{"messages": [value]} for value in MESSAGES]
    + [{"messages": [{"role": "user", "content": value}]} for value in VALUES]
    + [{"messages": [{"role": "user", "content": [value]}]} for value in VALUES]
    + [{"messages": [{"role": "user", "content": [[value]]}]} for value in VALUES]
    + [{"messages": [{"role": value, "content": "x"}]} for value in VALUES]
    + [{"messages": [{"role": "user", "content": "x", "name": value}]} for value in VALUES]
    + [{"messages": [{"role": "assistant", "content": "x", "tool_calls": value}]} for value in VALUES]
    + [{"stop": value} for value in ([3], ["x"] * 1100, 10**400, [[[["deep"]]]])]
    + [{"stream_options": {"include_usage": value}} for value in VALUES]
    + [{"response_format": {"type": value}} for value in VALUES],
    "create_completion": [{"prompt": [value]} for value in VALUES],
    "start_finetuning": [{"target_modules": [value]} for value in VALUES] + [{"labels": {"a": v}} for v in VALUES],
}


def batched(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def _operations(app: FastAPI) -> Iterator[tuple[str, str, str, list[str]]]:
    """Method, path, operation and the names of the body's fields of everything that takes JSON."""
    document = app.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                schema = content["schema"]
                name = next(iter(re.findall(r"schemas/(\w+)", str(schema))))
                fields = sorted(document["components"]["schemas"][name].get("properties", {}))
                yield method, re.sub(r"\{[^}]*\}", "job-1", path), operation["operationId"], fields


def _said(answer: Any) -> str:
    body = answer.json()
    return str(body["error"]["message"] if "error" in body else body["detail"])


def test_no_field_is_refused_in_words_of_the_validator(app: FastAPI, client: TestClient) -> None:
    asked, faults = 0, []
    for method, path, operation, fields in _operations(app):
        changes = [dict.fromkeys(some, value) for some in batched(fields, MANY) for value in VALUES]
        for change in [*changes, *NESTED.get(operation, [])]:
            answer = client.request(method, path, json={**BODIES.get(operation, {}), **change})
            asked += 1
            assert answer.status_code != 500, (path, change, answer.text)
            if answer.status_code in {400, 422} and (word := JARGON.search(_said(answer))):
                faults.append((path, str(change)[:80], word[0], _said(answer)[:200]))
    assert asked > 200
    assert faults == []


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", {"stop": 5}, "stop: has to be a valid string or a valid list (got 5)"),
        ("/v1/chat/completions", {"stop": ["a", 5]}, "stop.1: has to be a valid string (got 5)"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": {"a": 1}}]},
            "messages.0.content: has to be a valid string or a valid list (got {'a': 1})",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text: Field required",
        ),
        (
            "/v1/chat/completions",
            {"n": None, "temperature": "hot"},
            "temperature: has to be a valid number (got 'hot')",
        ),
        ("/v1/chat/completions", {"stream": "yes"}, "stream: has to be a valid boolean, true or false (got 'yes')"),
        ("/v1/completions", {"prompt": 1.5}, "prompt: has to be a valid string or a valid list (got 1.5)"),
        ("/api/start-finetuning", {"dataset_id": "d", "target_modules": 1}, "target_modules: has to be"),
    ],
)
def test_a_field_of_several_kinds_has_one_fault(
    client: TestClient, path: str, body: dict[str, Any], words: str
) -> None:
    least = {"model": "m", "messages": [{"role": "user", "content": "x"}]} if "chat" in path else {}
    least = least or ({"model": "m", "prompt": "x"} if "v1" in path else {})
    answer = client.post(path, json={**least, **body})
    assert answer.status_code in {400, 422}
    assert _said(answer).startswith(words)
    assert ";" not in _said(answer)


def test_values_are_shown_as_json_has_them(client: TestClient) -> None:
    answer = client.post("/api/test-model", json={"job_id": "j", "prompt": "x", "max_new_tokens": None, "seed": True})
    assert "max_new_tokens: has to be a valid integer (got null)" in _said(answer)
    assert "seed: has to be a valid integer (got true)" in _said(answer)
