"""The OpenAI API, as its official Python client sees it: with fakes behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray.errors import CapacityError, EngineError, InvalidInputError, SiennError
from sienn_ray.inference.engine import ChatMessage, GenerationRequest, SamplingParams, TokenLogprob
from sienn_ray.jobs.schema import JobStatus
from tests.support.fakes_api import BASE_MODEL, FakeEngines, job_record
from tests.support.in_process import served
from tests.support.in_process_tracker import InProcessTracker

TEXT = "A branch of artificial intelligence."
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is LoRA?"}]
PACKAGED = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEADLINE_S = 10.0


@pytest.fixture(autouse=True)
def completed(tracker: InProcessTracker, cached_base_model: str) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED, progress=100), job_record(id="job-2", status=JobStatus.RUNNING))


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with served(app) as url:
        yield f"{url}/v1"


@pytest.fixture
def client(app: FastAPI) -> Iterator[openai.OpenAI]:
    with TestClient(app) as http_client:
        yield openai.OpenAI(base_url="http://testserver/v1", api_key="any", max_retries=0, http_client=http_client)


def token(text: str, logprob: float = -0.5, *top: TokenLogprob) -> TokenLogprob:
    return TokenLogprob(len(text), text, text.encode(), logprob, top)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestModels:
    def test_are_base_models_that_are_here_and_adapters_of_completed_jobs(self, client: openai.OpenAI) -> None:
        models = {model.id: model for model in client.models.list()}
        assert set(models) == {BASE_MODEL, PACKAGED, "job-1"}
        assert {model.object for model in models.values()} == {"model"}
        assert models[BASE_MODEL].owned_by == "Qwen"
        assert models["job-1"].to_dict() == {
            "id": "job-1",
            "object": "model",
            "created": 1762943400,
            "owned_by": "sienn_ray",
            "root": BASE_MODEL,
            "parent": BASE_MODEL,
        }

    @pytest.mark.parametrize("model", [BASE_MODEL, "job-1"])
    def test_one(self, client: openai.OpenAI, model: str) -> None:
        assert client.models.retrieve(model).id == model

    @pytest.mark.parametrize("model", ["gpt-4", "Qwen/Nothing", "Qwen/Qwen2.5-7B-Instruct", "../etc", "\0", "a/b/c"])
    def test_unknown_one(self, client: openai.OpenAI, model: str) -> None:
        with pytest.raises(openai.NotFoundError) as raised:
            client.models.retrieve(model)
        assert raised.value.code == "model_not_found"

    def test_base_model_of_a_completed_job_is_one(self, client: openai.OpenAI, tracker: InProcessTracker) -> None:
        job = job_record(id="job-3", status=JobStatus.COMPLETED)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("some/base")
        tracker.put(job.model_copy(update={"config": job.config.model_copy(update={"base_model": "some/base"})}))
        assert client.models.retrieve("some/base").id == "some/base"


class TestChat:
    def test_answer(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        engines.result = replace(engines.result, num_cached_tokens=4)
        answer = client.chat.completions.create(model="job-1", messages=MESSAGES)
        [choice] = answer.choices
        assert (answer.object, answer.model) == ("chat.completion", "job-1")
        assert answer.id.startswith("chatcmpl-")
        assert abs(answer.created - time.time()) < 60
        assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", TEXT)
        assert (choice.finish_reason, choice.logprobs) == ("stop", None)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == 4
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 6, 15)

    def test_defaults_are_those_of_the_openai_api(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        client.chat.completions.create(model="job-1", messages=MESSAGES)
        client.chat.completions.create(model=BASE_MODEL, messages=MESSAGES)
        messages = (ChatMessage("system", "Be brief."), ChatMessage("user", "What is LoRA?"))
        sampling = SamplingParams(
            max_new_tokens=1024, fits_context=True, temperature=1.0, top_p=1.0, repetition_penalty=1.0
        )
        assert engines.asked == [
            (BASE_MODEL, GenerationRequest(messages, "job-1", "adapters/job-1", sampling)),
            (BASE_MODEL, GenerationRequest(messages, None, None, sampling)),
        ]

    def test_every_field_reaches_the_engine(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        client.chat.completions.create(
            model="job-1",
            messages=MESSAGES,
            max_completion_tokens=7,
            temperature=0.5,
            top_p=0.9,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            stop=["a", "b"],
            seed=5,
            n=2,
            logprobs=True,
            top_logprobs=3,
            extra_body={"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1},
        )
        expected = SamplingParams(
            max_new_tokens=7,
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            min_p=0.05,
            repetition_penalty=1.1,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            seed=5,
            stop=("a", "b"),
            num_logprobs=3,
        )
        assert [request.sampling for _, request in engines.asked] == [expected, replace(expected, seed=6)]

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"temperature": 0}, {"do_sample": False}),
            ({"stop": "x"}, {"stop": ("x",)}),
            ({"max_tokens": 3}, {"max_new_tokens": 3, "fits_context": False}),
            ({"max_tokens": 3, "max_completion_tokens": 4}, {"max_new_tokens": 4, "fits_context": False}),
            ({"logprobs": True}, {"num_logprobs": 0}),
            ({"seed": -1}, {"seed": 2**53 - 1}),
            ({"seed": None, "stop": None, "temperature": None, "n": None, "tools": None}, {}),
            ({"top_k": -1, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}}, {}),
            ({"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "logit_bias": {}}, {}),
        ],
        ids=str,
    )
    def test_field(
        self, client: openai.OpenAI, engines: FakeEngines, fields: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        client.chat.completions.create(model="job-1", messages=MESSAGES, extra_body=fields)
        base = SamplingParams(
            max_new_tokens=1024, fits_context=True, temperature=1.0, top_p=1.0, repetition_penalty=1.0
        )
        assert [request.sampling for _, request in engines.asked] == [replace(base, **expected)]

    def test_an_answer_can_be_sent_back(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        answer = client.chat.completions.create(model="job-1", messages=MESSAGES)
        parts = [{"type": "text", "text": "And"}, {"type": "text", "text": "QLoRA?"}]
        again: Any = [
            {"role": "developer", "content": "Be brief."},
            answer.choices[0].message,
            {"role": "user", "content": parts, "name": "me"},
        ]
        client.chat.completions.create(model="job-1", messages=again)
        assert engines.asked[-1][1].prompt == (
            ChatMessage("developer", "Be brief."),
            ChatMessage("assistant", TEXT),
            ChatMessage("user", "And\nQLoRA?", name="me"),
        )

    def test_several_answers(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="job-1", messages=MESSAGES, n=3)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 18)

    def test_logprobs(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        tokens = (token("A", -0.25, token("A", -0.25), token("The", -1.5)), token(" branch", float("-inf")))
        engines.result = replace(engines.result, text="A branch", logprobs=tokens)
        answer = client.chat.completions.create(model="job-1", messages=MESSAGES, logprobs=True, top_logprobs=2)
        assert answer.choices[0].logprobs is not None
        first, second = answer.choices[0].logprobs.content or []
        assert (first.token, first.logprob, first.bytes) == ("A", -0.25, [65])
        assert [(top.token, top.logprob) for top in first.top_logprobs] == [("A", -0.25), ("The", -1.5)]
        assert (second.logprob, second.top_logprobs) == (-9999.0, [])

    def test_stream(self, client: openai.OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="job-1", messages=MESSAGES, stream=True))
        assert {(chunk.object, chunk.model, chunk.id) for chunk in chunks} == {
            ("chat.completion.chunk", "job-1", chunks[0].id)
        }
        first, *middle, last = (chunk.choices[0] for chunk in chunks)
        assert (first.delta.role, first.delta.content) == ("assistant", "")
        assert "".join(choice.delta.content or "" for choice in middle) == TEXT
        assert {choice.finish_reason for choice in [first, *middle]} == {None}
        assert (last.delta.to_dict(), last.finish_reason) == ({}, "stop")
        assert {chunk.usage for chunk in chunks} == {None}

    def test_stream_of_several_answers_with_usage_and_logprobs(
        self, client: openai.OpenAI, engines: FakeEngines
    ) -> None:
        engines.result = replace(engines.result, text="A branch", logprobs=(token("A "), token("branch")))
        *chunks, last = client.chat.completions.create(
            model="job-1",
            messages=MESSAGES,
            stream=True,
            n=2,
            logprobs=True,
            stream_options={"include_usage": True},
        )
        assert {chunk.usage for chunk in chunks} == {None}
        assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 12)
        choices = [chunk.choices[0] for chunk in chunks]
        numbers = [choice.index for choice in choices]
        assert numbers != sorted(numbers)
        for number in (0, 1):
            own = [choice for choice in choices if choice.index == number]
            assert "".join(choice.delta.content or "" for choice in own) == "A branch"
            logprobs = [each.token for choice in own if choice.logprobs for each in choice.logprobs.content or []]
            assert logprobs == ["A ", "branch"]
            assert own[-1].finish_reason == "stop"


class TestCompletions:
    def test_answer(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        answer = client.completions.create(model=BASE_MODEL, prompt="LoRA is")
        [choice] = answer.choices
        assert (answer.object, choice.text, choice.finish_reason) == ("text_completion", TEXT, "stop")
        assert answer.id.startswith("cmpl-")
        sampling = SamplingParams(max_new_tokens=16, temperature=1.0, top_p=1.0, repetition_penalty=1.0)
        assert engines.asked == [(BASE_MODEL, GenerationRequest("LoRA is", sampling=sampling))]

    def test_several_prompts_with_several_answers(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        engines.result = replace(engines.result, finish_reason="length", num_cached_tokens=2)
        answer = client.completions.create(model="job-1", prompt=["a", "b"], n=2, seed=1)
        asked = [(request.prompt, request.sampling.seed) for _, request in engines.asked]
        assert asked == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        assert [(choice.index, choice.finish_reason) for choice in answer.choices] == [(n, "length") for n in range(4)]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (18, 24)
        assert answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == 4

    @pytest.mark.parametrize("stream", [False, True])
    def test_logprobs(self, client: openai.OpenAI, engines: FakeEngines, stream: bool) -> None:
        tokens = (token("A ", -0.25, token("The", -1.5)), token("branch"))
        engines.result = replace(engines.result, text="A branch", logprobs=tokens)
        answer: Any = client.completions.create(model="job-1", prompt="a", logprobs=1, stream=stream)
        found = [choice.logprobs for each in (answer if stream else [answer]) for choice in each.choices]
        found = [logprobs for logprobs in found if logprobs]
        assert [text for each in found for text in each.tokens] == ["A ", "branch"]
        assert [offset for each in found for offset in each.text_offset] == [0, 2]
        assert [value for each in found for value in each.token_logprobs] == [-0.25, -0.5]
        assert [value for each in found for value in each.top_logprobs] == [{"The": -1.5}, {}]
        assert engines.asked[0][1].sampling.num_logprobs == 1

    def test_stream(self, client: openai.OpenAI) -> None:
        *chunks, last = client.completions.create(
            model="job-1", prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
        )
        for number in (0, 1):
            own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == number]
            assert "".join(choice.text for choice in own) == TEXT
            assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["stop"]
        assert last.usage is not None
        assert last.usage.prompt_tokens == 18


class TestErrors:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (InvalidInputError("prompt has 3000 tokens"), openai.BadRequestError),
            (CapacityError("64 requests wait", retry_after_s=30), openai.InternalServerError),
            (EngineError("can't be loaded"), openai.InternalServerError),
            (KeyError("unforeseen"), openai.InternalServerError),
        ],
        ids=repr,
    )
    def test_error_of_the_engine(
        self,
        client: openai.OpenAI,
        engines: FakeEngines,
        error: Exception,
        kind: type[openai.APIStatusError],
        stream: bool,
    ) -> None:
        engines.error = error
        with pytest.raises(kind) as raised:
            client.chat.completions.create(model="job-1", messages=MESSAGES, stream=stream)
        assert isinstance(raised.value.body, dict)
        assert set(raised.value.body) == {"message", "type", "param", "code"}
        if isinstance(error, SiennError):
            assert raised.value.body["message"].startswith(error.message)
        retry_after = raised.value.response.headers.get("retry-after")
        assert retry_after == ("30" if isinstance(error, CapacityError) else None)

    def test_error_in_the_middle_of_a_stream(self, client: openai.OpenAI, engines: FakeEngines) -> None:
        engines.late_error = CapacityError("no answer within 300 s")
        stream = client.chat.completions.create(model="job-1", messages=MESSAGES, stream=True, n=2)
        with pytest.raises(openai.APIError, match="no answer within 300 s"):
            list(stream)
        wait_until(lambda: engines.num_running == 0)

    @pytest.mark.parametrize("stream", [False, True])
    def test_one_answer_that_fails_ends_the_others(
        self, client: openai.OpenAI, engines: FakeEngines, stream: bool
    ) -> None:
        engines.error_of = lambda request: EngineError("full") if request.sampling.seed == 2 else None
        engines.hangs = True
        with pytest.raises(openai.APIError, match="full"):
            list(client.chat.completions.create(model="job-1", messages=MESSAGES, stream=stream, n=3, seed=0))
        assert len(engines.asked) == 3
        wait_until(lambda: engines.num_running == 0)

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"tools": [{"type": "function"}]}, "tools"),
            ({"logit_bias": {"7": 1}}, "logit_bias"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"n": 9}, "n"),
            ({"temperature": 2.1}, "temperature"),
            ({"top_p": 0}, "top_p"),
            ({"stop": ["a"] * 17}, "stop"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"top_logprobs": 21}, "top_logprobs"),
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "function", "content": "a"}]}, "messages"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
            ({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}, "messages"),
            ({"reasoning": {"effort": "high"}}, "reasoning"),
            ({"modle": "a"}, "modle"),
            ({"model": None}, "model"),
        ],
        ids=str,
    )
    def test_field_that_is_refused_is_named(
        self, client: openai.OpenAI, engines: FakeEngines, fields: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(openai.BadRequestError, match=param) as raised:
            client.chat.completions.create(model="job-1", messages=MESSAGES, extra_body=fields)
        assert (raised.value.param, raised.value.type) == (param, "invalid_request_error")
        assert engines.asked == []

    @pytest.mark.parametrize(
        ("fields", "part"),
        [
            ({"prompt": [1, 2]}, "prompt: token ids are not taken"),
            ({"prompt": [[1, 2]]}, "prompt: token ids are not taken"),
            ({"prompt": []}, "prompt"),
            ({"prompt": ""}, "prompt"),
            ({"prompt": ["a"] * 17}, "prompt"),
            ({"echo": True}, "echo: is not supported here"),
            ({"suffix": "b"}, "suffix: is not supported here"),
            ({"best_of": 2}, "best_of"),
            ({"logprobs": 6}, "logprobs"),
        ],
        ids=str,
    )
    def test_completion_that_is_refused(self, client: openai.OpenAI, fields: dict[str, Any], part: str) -> None:
        with pytest.raises(openai.BadRequestError, match=part):
            client.completions.create(**{"model": "job-1", "prompt": "a", **fields})

    def test_top_logprobs_need_logprobs(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="top_logprobs needs logprobs"):
            client.chat.completions.create(model="job-1", messages=MESSAGES, top_logprobs=2)

    def test_part_that_is_no_text_is_named(self, client: openai.OpenAI) -> None:
        messages: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]}]
        with pytest.raises(openai.BadRequestError, match="a part of type 'image_url' is not taken"):
            client.chat.completions.create(model="job-1", messages=messages)

    def test_unknown_model(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="The model 'gpt-4' does not exist here") as raised:
            client.chat.completions.create(model="gpt-4", messages=MESSAGES)
        assert raised.value.code == "model_not_found"

    def test_job_that_is_not_completed(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="Job status is 'running'"):
            client.chat.completions.create(model="job-2", messages=MESSAGES)

    def test_path_that_is_not_there(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="/docs lists what is") as raised:
            client.embeddings.create(model="job-1", input="a")
        assert raised.value.code is None

    def test_tracker_that_is_away(self, client: openai.OpenAI, tracker: InProcessTracker) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting", retry_after_s=7))
        with pytest.raises(openai.InternalServerError, match="restarting") as raised:
            client.models.list()
        assert (raised.value.status_code, raised.value.response.headers["retry-after"]) == (503, "7")

    def test_body_that_is_too_large(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.APIStatusError, match="SIENN_MAX_BODY_BYTES") as raised:
            client.completions.create(model="job-1", prompt="a" * 2_000_000)
        assert raised.value.status_code == 413


class TestClientThatGoesAway:
    def test_ends_all_answers_of_its_stream(self, url: str, engines: FakeEngines) -> None:
        engines.hangs = True
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
            stream = client.chat.completions.create(model="job-1", messages=MESSAGES, stream=True, n=3)
            next(stream)
            assert engines.num_running == 3
            stream.close()
        wait_until(lambda: engines.num_running == 0)

    @pytest.mark.parametrize("stream", [False, True])
    def test_ends_answers_that_it_waits_for(self, url: str, engines: FakeEngines, stream: bool) -> None:
        engines.hangs = True
        engines.result = replace(engines.result, text="")

        async def ask_and_leave() -> None:
            async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
                asking: Any = client.chat.completions.create(model="job-1", messages=MESSAGES, n=2, stream=stream)
                task = asyncio.ensure_future(asking)
                await asyncio.to_thread(wait_until, lambda: engines.num_running == 2)
                task.cancel()
                await asyncio.wait({task})

        asyncio.run(ask_and_leave())
        wait_until(lambda: engines.num_running == 0)
