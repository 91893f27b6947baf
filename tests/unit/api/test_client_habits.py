"""What clients of the OpenAI API send beside what they mean: it says nothing, or is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import ContextLengthError
from sienn_ray.inference.engine import ChatMessage, ToolCall
from sienn_ray.jobs.schema import JobStatus
from tests.support.fakes_api import FakeEngines, job_record
from tests.support.in_process_tracker import InProcessTracker

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
    echoed: dict[str, Any] = {"id": "msg_1", "tool_calls": [], "refusal": None, "audio": None, "annotations": []}
    echoed |= {"function_call": None, "reasoning_details": [], "reasoning": "It is noon."}
    answer = ask(client, USER, {"role": "assistant", "content": "Yes.", **echoed}, USER)
    assert answer.status_code == 200, answer.text
    assert heard(engines)[1] == ChatMessage("assistant", "Yes.", reasoning_content="It is noon.")


@pytest.mark.parametrize(
    ("fields", "content", "reasoning"),
    [
        ({"content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, "Yes."]}, "Yes.", "Hm."),
        ({"content": [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Yes."}]}, "Yes.", "Hm."),
        ({"content": [{"type": "redacted_thinking", "data": "x"}, "Yes."]}, "Yes.", None),
        ({"content": "Yes.", "thinking": "Hm."}, "Yes.", "Hm."),
        ({"content": "Yes.", "thinking": "Hm.", "reasoning_content": "Hm."}, "Yes.", "Hm."),
        ({"content": ["Yes.", {"type": "thinking", "thinking": "Ah."}], "reasoning": "Hm."}, "Yes.", "Hm.\nAh."),
        ({"content": "Yes.", "thinking": None, "weight": 1}, "Yes.", None),
        ({"content": None, "refusal": "I can't."}, "I can't.", None),
        ({"refusal": "I can't."}, "I can't.", None),
        ({"content": "Well.", "refusal": "I can't."}, "Well.\nI can't.", None),
        ({"content": [{"type": "refusal", "refusal": "I can't."}]}, "I can't.", None),
    ],
)
def test_reasoning_and_refusals_come_back_under_many_names(
    client: TestClient, engines: FakeEngines, fields: dict[str, Any], content: str, reasoning: str | None
) -> None:
    answer = ask(client, USER, {"role": "assistant", **fields}, USER)
    assert answer.status_code == 200, answer.text
    assert heard(engines)[1] == ChatMessage("assistant", content, reasoning_content=reasoning)


def test_a_call_may_have_null_for_arguments(client: TestClient, engines: FakeEngines) -> None:
    call = {"id": "c1", "function": {"name": "hours", "arguments": None}}
    answer = ask(client, USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "6-18"})
    assert answer.status_code == 200, answer.text
    assert heard(engines)[1].tool_calls == (ToolCall("hours", "{}", "c1"),)


TOOL = {"type": "function", "function": {"name": "hours", "description": "When?", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "hours", "arguments": '{"day": "Monday"}'}}


@pytest.mark.parametrize("content", [None, "", [], ()])
def test_calls_and_their_results_are_read(client: TestClient, engines: FakeEngines, content: Any) -> None:
    calling: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": [{**CALL, "index": 0}]}
    if content == ():
        del calling["content"]
    result = {"role": "tool", "tool_call_id": "c1", "name": "hours", "content": [{"type": "text", "text": "6-18"}]}
    answer = ask(client, USER, calling, result, tools=[TOOL], tool_choice="auto")
    assert answer.status_code == 200, answer.text
    assert heard(engines)[1:] == (
        ChatMessage("assistant", "", tool_calls=(ToolCall("hours", '{"day": "Monday"}', "c1"),)),
        ChatMessage("tool", "6-18", tool_call_id="c1", name="hours"),
    )
    ((_, request),) = engines.asked
    assert request.tools == (TOOL,)


def test_the_model_is_not_shown_tools_that_it_may_not_call(client: TestClient, engines: FakeEngines) -> None:
    assert ask(client, USER, tools=[TOOL], tool_choice="none").status_code == 200
    ((_, request),) = engines.asked
    assert request.tools == ()


def test_what_is_meant_for_the_service_is_not_shown_to_the_model(client: TestClient, engines: FakeEngines) -> None:
    strict = {"type": "function", "function": {"name": "hours", "strict": True, "description": None}}
    assert ask(client, USER, tools=[strict]).status_code == 200
    assert engines.asked[0][1].tools == ({"type": "function", "function": {"name": "hours"}},)


@pytest.mark.parametrize("arguments", ['{"day": "Monday"}', {"day": "Monday"}])
def test_arguments_come_as_text_or_as_an_object(client: TestClient, engines: FakeEngines, arguments: Any) -> None:
    call = {"function": {"name": "hours", "arguments": arguments}}
    assert ask(client, USER, {"role": "assistant", "tool_calls": [call]}, USER).status_code == 200
    assert heard(engines)[1].tool_calls == (ToolCall("hours", '{"day": "Monday"}'),)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "function", "name": "hours", "content": "6-18"}, "send the role 'tool'"),
        ({"role": "assistant", "content": None, "function_call": {"name": "hours"}}, "send tool_calls"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls: a message of the role 'user' has none"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "text of a JSON object"),
        ({"role": "assistant", "tool_calls": [{"type": "custom", "function": {"name": "f"}}]}, "type 'custom'"),
        ({"role": "assistant", "tool_calls": [{"function": None}]}, "function: has to be a valid object"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}, "type 'image_url'"),
        ({"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}, "type 'thinking'"),
        ({"role": "assistant", "content": "x", "weight": 7}, "weight"),
        ({"role": "user"}, "content: Field required"),
    ],
)
def test_messages_that_are_not_read_are_named(client: TestClient, message: dict[str, Any], words: str) -> None:
    answer = ask(client, USER, message)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools", "a tool of type 'web_search' is not supported here"),
        ({"tools": [TOOL, TOOL]}, "tools", "two tools have the name 'hours'"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice", "nothing here makes a model call a tool"),
        ({"tool_choice": {"type": "function", "function": {"name": "hours"}}}, "tool_choice", "nothing here makes"),
        ({"functions": [{"name": "hours"}]}, "functions", "send tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": "y" * 200_000}}}]},
            "tools",
            "at most",
        ),
    ],
)
def test_tools_that_are_not_taken_are_named(client: TestClient, fields: dict[str, Any], param: str, words: str) -> None:
    error = ask(client, USER, **fields).json()["error"]
    assert words in error["message"]
    assert error["param"] == param


def test_tools_are_bounded_in_depth(client: TestClient) -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"properties": {"a": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    assert "nested more than 32 levels deep" in ask(client, USER, tools=[tool]).json()["error"]["message"]


ANSWER = 'Let me see.\n<tool_call>\n{"name": "hours", "arguments": {"day": "Monday"}}\n</tool_call>'


def test_a_call_comes_back_as_a_call(client: TestClient, engines: FakeEngines) -> None:
    engines.result = replace(engines.result, text=ANSWER)
    (choice,) = ask(client, USER, tools=[TOOL]).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "hours", "arguments": '{"day": "Monday"}'}


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL], "tool_choice": "none"}])
def test_without_tools_a_call_is_text(client: TestClient, engines: FakeEngines, fields: dict[str, Any]) -> None:
    engines.result = replace(engines.result, text=ANSWER)
    (choice,) = ask(client, USER, **fields).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (ANSWER, "stop")
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(("parallel", "number"), [(True, 2), (False, 1), (None, 2)])
def test_several_calls_come_where_they_may(
    client: TestClient, engines: FakeEngines, parallel: bool | None, number: int
) -> None:
    call = '<tool_call>{"name": "hours", "arguments": {}}</tool_call>'
    engines.result = replace(engines.result, text=call * 2)
    (choice,) = ask(client, USER, tools=[TOOL], parallel_tool_calls=parallel).json()["choices"]
    assert len(choice["message"]["tool_calls"]) == number
    assert choice["message"]["content"] is None


def deltas(answer: Any) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [choice for line in lines for choice in json.loads(line)["choices"]]


def test_calls_are_streamed(client: TestClient, engines: FakeEngines) -> None:
    engines.result = replace(engines.result, text=ANSWER)
    choices = deltas(ask(client, USER, tools=[TOOL], stream=True))
    assert "".join(each["delta"].get("content", "") for each in choices) == "Let me see."
    (call,) = [call for each in choices for call in each["delta"].get("tool_calls", [])]
    assert (call["index"], call["type"], call["function"]["name"]) == (0, "function", "hours")
    assert choices[-1]["finish_reason"] == "tool_calls"


THOUGHT = "<think>\nIt is noon.\n</think>\n\nYes, it is."


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_comes_beside_the_answer(client: TestClient, engines: FakeEngines, stream: bool) -> None:
    engines.result = replace(engines.result, text=THOUGHT)
    answer = ask(client, USER, stream=stream)
    messages = [each["delta"] for each in deltas(answer)] if stream else [answer.json()["choices"][0]["message"]]
    assert "".join(each.get("reasoning_content") or "" for each in messages) == "It is noon."
    assert "".join(each.get("content") or "" for each in messages) == "Yes, it is."


def test_reasoning_stays_in_the_answer_where_that_is_asked(client: TestClient, engines: FakeEngines) -> None:
    engines.result = replace(engines.result, text=THOUGHT)
    message = ask(client, USER, separate_reasoning=False).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": THOUGHT, "refusal": None}


def test_reasoning_that_the_prompt_has_opened_comes_beside_the_answer(client: TestClient, engines: FakeEngines) -> None:
    engines.result = replace(engines.result, text="It is noon.</think>Yes.", begins_in_reasoning=True)
    message = ask(client, USER).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("It is noon.", "Yes.")


BEGUN = {"role": "assistant", "content": "Yes, the bakery is"}


@pytest.mark.parametrize(
    ("message", "fields", "continues"),
    [
        (BEGUN, {}, False),
        (BEGUN, {"add_generation_prompt": True}, False),
        (BEGUN, {"continue_final_message": True}, True),
        (BEGUN, {"continue_final_message": True, "add_generation_prompt": False}, True),
        ({**BEGUN, "prefix": True}, {}, True),
        ({**BEGUN, "prefix": True}, {"continue_final_message": True, "add_generation_prompt": None}, True),
        ({**BEGUN, "prefix": False}, {"continue_final_message": False}, False),
    ],
)
def test_the_last_message_is_gone_on_with_where_that_is_asked(
    client: TestClient, engines: FakeEngines, message: Any, fields: dict[str, Any], continues: bool
) -> None:
    answer = ask(client, USER, message, **fields)
    assert answer.status_code == 200, answer.text
    ((_, request),) = engines.asked
    assert request.continues is continues


@pytest.mark.parametrize(
    ("messages", "fields", "words"),
    [
        ([USER], {"continue_final_message": True}, "needs messages whose last one is the assistant's"),
        ([USER, BEGUN], {"add_generation_prompt": False}, "send continue_final_message true with it"),
        ([USER, BEGUN], {"continue_final_message": True, "add_generation_prompt": True}, "it has to be false"),
        ([USER, {**BEGUN, "prefix": True}], {"add_generation_prompt": True}, "it has to be false"),
        ([USER, {**BEGUN, "prefix": True}], {"continue_final_message": False}, "leave one of them out"),
        ([{**BEGUN, "prefix": True}, USER], {}, "prefix: only the last of messages"),
        ([{**USER, "prefix": True}], {}, "prefix: only a message of the assistant"),
        ([USER, {**BEGUN, "content": " "}], {"continue_final_message": True}, "needs a text to go on with"),
        ([USER, {**BEGUN, "tool_calls": [CALL]}], {"continue_final_message": True}, "a message that calls tools"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(
    client: TestClient, messages: list[Any], fields: dict[str, Any], words: str
) -> None:
    answer = ask(client, *messages, **fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] in {"messages", "continue_final_message", "add_generation_prompt", None}


def test_the_first_of_fields_that_do_not_go_together_is_named(client: TestClient) -> None:
    assert ask(client, USER, continue_final_message=True).json()["error"]["param"] == "continue_final_message"
    assert ask(client, USER, top_logprobs=2).json()["error"]["param"] == "top_logprobs"


@pytest.mark.parametrize("path", ["test-model", "compare-models"])
def test_our_own_routes_go_on_with_the_last_message_too(
    client: TestClient, engines: FakeEngines, tracker: InProcessTracker, path: str
) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED))
    named: dict[str, Any] = {"job_id": "job-1"} if path == "test-model" else {"job_ids": ["job-1"]}
    body = {**named, "messages": [USER, BEGUN], "continue_final_message": True, "tools": [TOOL]}
    answer = client.post(f"/api/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert {(request.continues, len(request.tools)) for _, request in engines.asked} == {(True, 1)}
    assert client.post(f"/api/{path}", json={**body, "messages": [USER]}).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": None}, "stream": True},
        {"response_format": {"type": "text", "json_schema": None}},
        {"logit_bias": {}, "tools": [], "tool_choice": "auto", "functions": [], "function_call": "none"},
        {"n": 1.0, "max_tokens": 8.0, "temperature": 0, "top_k": -1, "seed": -1},
        {"max_tokens": -1},
        {"max_completion_tokens": -1, "logprobs": False, "top_logprobs": 0},
        {"user": "", "metadata": {}, "store": False, "service_tier": "auto", "reasoning_effort": "low"},
        {"stop": ["a"] * 16},
        {"parallel_tool_calls": True},
    ],
)
def test_fields_that_change_nothing_are_taken(client: TestClient, fields: dict[str, Any]) -> None:
    answer = ask(client, USER, **fields)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "fields", [{"logprobs": None}, {"max_tokens": -1}, {"suffix": "", "echo": False, "best_of": 1}]
)
def test_completions_take_such_fields_too(client: TestClient, fields: dict[str, Any]) -> None:
    answer = client.post("/v1/completions", json={"model": MODEL, "prompt": "x", **fields})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "content",
    [
        {"type": "text", "text": "a"},
        [{"type": "input_text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        [{"type": "output_text", "text": "a", "annotations": [], "logprobs": None}],
    ],
)
def test_parts_of_other_apis_are_texts(client: TestClient, engines: FakeEngines, content: Any) -> None:
    answer = ask(client, {"role": "user", "content": content})
    assert answer.status_code == 200, answer.text
    assert heard(engines) == (ChatMessage("user", "a"),)


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


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/v1/v1/chat/completions", "has /v1 already"),
        ("POST", "/v1/fine_tuning/jobs", "POST /api/start-finetuning"),
        ("POST", "/v1/files", "POST /api/upload-dataset"),
        ("POST", "/v1/responses", "POST /v1/chat/completions"),
        ("POST", "/api/chat", "with the base URL ending in /v1"),
        ("GET", "/api/tags", "with the base URL ending in /v1"),
        ("POST", "/chat/completions", "as in /v1/chat/completions"),
        ("POST", "/v1/embeddings", "/docs lists what is"),
    ],
)
def test_a_path_of_another_api_leads_here(client: TestClient, method: str, path: str, words: str) -> None:
    answer = client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 404
    said = answer.json()["error"]["message"] if path.startswith("/v1/") else answer.json()["detail"]
    assert said.startswith(f"{method} {path} is not part of this API; ")
    assert words in said
