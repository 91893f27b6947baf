"""How requests reach the engines' replicas, with Serve's handles faked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.engine_applications import EngineApplications
from deployments.engines import ServeEngines
from sienn_ray.errors import CapacityError, InvalidBaseModelError, InvalidInputError, QueueFullError, SiennError
from sienn_ray.inference.applications import EngineKey
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.settings import EngineKind, Settings

ASKED = GenerationRequest.ask("What is LoRA?", adapter_id="job-1", adapter_key="adapters/job-1")
RESULT = GenerationResult(
    text="ab",
    rendered_prompt="",
    num_prompt_tokens=1,
    num_generated_tokens=2,
    finish_reason="stop",
    adapter_cached=True,
    generation_time_s=0.1,
)
WHOLE = [GenerationDelta("a"), GenerationDelta("b"), GenerationDelta(result=RESULT)]


class FakeResponse:
    """What a handle gives: items that come one by one, errors among them; after the last one, silence."""

    def __init__(self, items: list[Any]) -> None:
        self._items = list(items)
        self.num_cancelled = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._items:
            await asyncio.Event().wait()
        item = self._items.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    def __await__(self) -> Any:
        return self.__anext__().__await__()

    def cancel(self) -> None:
        self.num_cancelled += 1


class FakeHandle:
    """Answers the first request with some items, the second one with others."""

    def __init__(self, *items: list[Any]) -> None:
        self.responses = [FakeResponse(each) for each in items]
        self.num_asked = 0
        self.options_given: dict[str, Any] = {}
        self.generate = self.stream = self

    @property
    def response(self) -> FakeResponse:
        return self.responses[self.num_asked - 1]

    def options(self, **options: Any) -> FakeHandle:
        self.options_given = options
        return self

    def remote(self, request: GenerationRequest) -> FakeResponse:
        assert request.prompt
        self.num_asked += 1
        return self.response


class FakeStarts:
    """Engines that have started."""

    def __init__(self, handle: FakeHandle) -> None:
        self._handle = handle
        self.events: list[str] = []
        self.is_there = True
        self.key = EngineKey("some/base")

    def is_heard(self, key: EngineKey) -> bool:
        assert key == self.key
        return self.is_there

    async def ready(self, key: EngineKey, wait_s: float | None = None) -> Any:
        assert key == self.key
        self.events.append(f"ready within {wait_s}")
        return self._handle

    def note_answer(self, key: EngineKey, asked_at: float) -> None:
        assert key == self.key
        assert asked_at <= time.monotonic()

    def note_loss(self, _: EngineKey) -> None:
        self.events.append("lost")
        self.is_there = False


class Engines(ServeEngines):
    def __init__(self, handle: FakeHandle, timeout_s: float, **options: Any) -> None:
        settings = Settings(env="test", generation_timeout_s=timeout_s, **options)
        super().__init__(settings, EngineApplications(settings))
        self.starts = FakeStarts(handle)
        self._starts: Any = self.starts


def generate(handle: FakeHandle, request: GenerationRequest = ASKED, timeout_s: float = 60.0) -> GenerationResult:
    return asyncio.run(Engines(handle, timeout_s).generate("some/base", request))


def stream(
    handle: FakeHandle, request: GenerationRequest = ASKED, timeout_s: float = 60.0, most: int = 100
) -> list[GenerationDelta]:
    async def run() -> list[GenerationDelta]:
        found: list[GenerationDelta] = []
        pieces = Engines(handle, timeout_s).stream("some/base", request)
        async for delta in pieces:
            found.append(delta)
            if len(found) == most:
                await pieces.aclose()
        return found

    return asyncio.run(run())


def task_error(cause: Exception) -> Exception:
    error: Exception = RayTaskError("stream", "a trace", cause)
    return error


FULL = BackPressureError(num_queued_requests=64, max_queued_requests=64)
ERRORS = [
    (task_error(InvalidInputError("too long")), InvalidInputError, "too long"),
    (FULL, CapacityError, "SIENN_ENGINE_MAX_QUEUE"),
    (task_error(QueueFullError.of("some/base", 64)), CapacityError, "64 requests wait for some/base already"),
]


def test_request_goes_where_its_adapter_is() -> None:
    handle = FakeHandle([RESULT])
    assert generate(handle) == RESULT
    assert handle.options_given == {"multiplexed_model_id": "job-1"}
    assert handle.response.num_cancelled == 0
    handle = FakeHandle(WHOLE)
    stream(handle, GenerationRequest.ask("Why?"))
    assert handle.options_given == {"multiplexed_model_id": "", "stream": True}


@pytest.mark.parametrize(("error", "kind", "words"), ERRORS, ids=repr)
def test_errors_are_the_projects_own(error: Exception, kind: type[SiennError], words: str) -> None:
    with pytest.raises(kind, match=words):
        generate(FakeHandle([error]))
    with pytest.raises(kind, match=words):
        stream(FakeHandle([error]))


LATE_ERRORS = [ERRORS[0], (ActorDiedError(), CapacityError, "was lost while it answered")]


@pytest.mark.parametrize(("error", "kind", "words"), LATE_ERRORS, ids=repr)
def test_error_behind_a_piece_is_the_last_piece(error: Exception, kind: type[SiennError], words: str) -> None:
    *pieces, last = stream(FakeHandle([GenerationDelta("a"), error]))
    assert pieces == [GenerationDelta("a")]
    assert isinstance(last.error, kind)
    assert words in last.error.message


def test_error_that_the_engine_tells_is_raised_if_it_comes_first() -> None:
    failed = GenerationDelta(error=InvalidInputError("too long"))
    with pytest.raises(InvalidInputError, match="too long"):
        stream(FakeHandle([failed]))
    assert stream(FakeHandle([GenerationDelta("a"), failed])) == [GenerationDelta("a"), failed]


def test_whole_stream_cancels_nothing() -> None:
    handle = FakeHandle(WHOLE)
    assert stream(handle) == WHOLE
    assert handle.response.num_cancelled == 0


def test_closing_a_stream_cancels_the_request() -> None:
    handle = FakeHandle(WHOLE)
    assert stream(handle, most=1) == WHOLE[:1]
    assert handle.response.num_cancelled == 1


def test_answer_that_takes_too_long_is_cancelled() -> None:
    handle = FakeHandle([])
    with pytest.raises(CapacityError, match="no answer within 0 s"):
        generate(handle, timeout_s=0.05)
    assert handle.response.num_cancelled == 1
    handle = FakeHandle(WHOLE[:1])
    *_, last = stream(handle, timeout_s=0.05)
    assert isinstance(last.error, CapacityError)
    assert handle.response.num_cancelled == 1


def test_caller_that_is_cancelled_cancels_the_request() -> None:
    handle = FakeHandle([])

    async def give_up() -> None:
        async with asyncio.timeout(0.05):
            await Engines(handle, 60.0).generate("some/base", ASKED)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert handle.response.num_cancelled == 1


def test_request_whose_replica_is_lost_is_asked_again() -> None:
    handle = FakeHandle([ActorDiedError()], [RESULT])
    engines = Engines(handle, 60.0)
    assert asyncio.run(engines.generate("some/base", ASKED, 7.0)) == RESULT
    assert engines.starts.events == ["ready within 7.0", "lost", "ready within 7.0"]
    handle = FakeHandle([ActorDiedError()], [ActorDiedError()], WHOLE)
    assert stream(handle) == WHOLE
    assert handle.num_asked == 3


def test_request_that_loses_every_replica_is_given_up() -> None:
    handle = FakeHandle(*[[ActorDiedError()]] * 9)
    with pytest.raises(CapacityError, match="was lost while it answered"):
        generate(handle)
    assert handle.num_asked == 3


def test_stream_that_has_begun_is_not_begun_again() -> None:
    handle = FakeHandle([GenerationDelta("a"), ActorDiedError()], WHOLE)
    assert len(stream(handle)) == 2
    assert handle.num_asked == 1


def test_lost_request_waits_for_room_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.engines._POLL_S", 0.0)
    full = task_error(QueueFullError.of("some/base", 64))  # an engine that has begun to take what comes back
    handle = FakeHandle([ActorDiedError()], [FULL], [full], [FULL], [RESULT])
    assert generate(handle) == RESULT
    assert handle.num_asked == 5


def test_request_that_waited_for_the_engine_waits_for_room_in_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.engines._POLL_S", 0.0)
    handle = FakeHandle([FULL], [RESULT])
    engines = Engines(handle, 60.0)
    engines.starts.is_there = False
    assert asyncio.run(engines.generate("some/base", ASKED)) == RESULT


def test_nobody_waits_for_room_longer_than_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.engines._POLL_S", 0.001)
    handle = FakeHandle([ActorDiedError()], *[[FULL]] * 10_000)
    with pytest.raises(CapacityError, match="SIENN_ENGINE_MAX_QUEUE"):
        generate(handle, timeout_s=0.05)
    assert 1 < handle.num_asked < 10_000


def test_handle_of_a_deployment_that_is_gone_is_a_loss() -> None:
    handle = FakeHandle([DeploymentUnavailableError(DeploymentID("Engine", "engine-some--base"))], [RESULT])
    assert generate(handle) == RESULT


def test_engine_of_a_model_that_is_not_allowed_is_not_started() -> None:
    handle = FakeHandle(WHOLE)
    engines = Engines(handle, 5.0, allowed_base_models=("Qwen/*",))
    with pytest.raises(InvalidBaseModelError, match="'some/base' isn't allowed here"):
        asyncio.run(engines.generate("some/base", ASKED))
    assert handle.num_asked == 0


DORA = GenerationRequest.ask("Hello", adapter_id="job-2", adapter_config={"r": 16, "use_dora": True})


def test_what_vllm_cant_serve_is_asked_of_our_own_engine() -> None:
    engines = Engines(FakeHandle([RESULT]), 60.0)
    engines.starts.key = EngineKey("some/base", kind=EngineKind.BUILTIN)
    assert asyncio.run(engines.generate("some/base", DORA)) == RESULT


def test_where_vllm_is_all_there_is_it_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="uses DoRA"):
        asyncio.run(Engines(FakeHandle(), 60.0, engine="vllm").generate("some/base", DORA))
