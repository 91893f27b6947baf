"""Starting engines, with Serve faked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments import engine_starts
from deployments.engine_starts import EngineStarts
from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.settings import Settings

APPLICATION = "engine-some--base"


class FakeServe:
    """Serve with one application at the most, whose handle is the fake itself.

    Attributes:
        is_ready: Set when a replica answers.
        errors: What the first answers are.
        num_replicas: Replicas that run.
    """

    def __init__(self, status: str | None) -> None:
        self.is_ready = asyncio.Event()
        self.errors: list[Exception] = []
        self.num_runs = self.num_asked = self.num_cancelled = 0
        self.num_replicas = self.num_looks = 0
        self.applications: dict[str, Any] = {}
        if status is not None:
            self.set_status(status)

    def set_status(self, status: str, message: str = "", trigger: str = "UNSPECIFIED") -> None:
        fake = self

        class Deployment:
            status_trigger = SimpleNamespace(value=trigger)

            @property
            def replica_states(self) -> dict[str, int]:
                return {"RUNNING": fake.num_replicas}

        self.applications[APPLICATION] = SimpleNamespace(
            status=SimpleNamespace(value=status), message=message, deployments={"Engine": Deployment()}
        )

    def status(self) -> FakeServe:
        self.num_looks += 1
        return self

    def RunTarget(self, target: Any, *, name: str, route_prefix: None) -> str:  # noqa: N802
        assert (target, route_prefix) == ("application of some/base", None)
        return name

    def run_many(self, targets: list[str], *, wait_for_applications_running: bool) -> None:
        assert (targets, wait_for_applications_running) == ([APPLICATION], False)
        self.num_runs += 1
        self.set_status("DEPLOYING")

    def get_app_handle(self, name: str) -> FakeServe:
        assert name == APPLICATION
        return self

    @property
    def ready(self) -> FakeServe:
        return self

    def remote(self) -> FakeServe:
        self.num_asked += 1
        return self

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        await self.is_ready.wait()

    def cancel(self) -> None:
        self.num_cancelled += 1


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine with starts and a fake."""
    monkeypatch.setattr(engine_starts, "build_engine", lambda base_model, _: f"application of {base_model}")
    monkeypatch.setattr(engine_starts, "_LOOK_S", 0.01)
    monkeypatch.setattr(engine_starts, "_RETRY_S", 0.001)
    monkeypatch.setattr(engine_starts, "_SHORTEST_WAIT_S", 0.05)

    def run(test: Callable[[EngineStarts, FakeServe], Any], status: str | None, **settings: Any) -> None:
        async def main() -> None:
            serve = FakeServe(status)
            monkeypatch.setattr(engine_starts, "serve", serve)
            await test(EngineStarts(Settings(env="test", **settings)), serve)

        asyncio.run(main())

    return run


@pytest.mark.parametrize("status", [None, "DEPLOY_FAILED", "RUNNING"])
def test_all_who_ask_share_one_start(run: Callable[..., None], status: str | None) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = [asyncio.create_task(starts.ready("some/base")) for _ in range(5)]
        await until(lambda: serve.num_asked == 1)
        assert not any(each.done() for each in waiting)
        serve.is_ready.set()
        assert await asyncio.gather(*waiting) == [serve] * 5
        assert (serve.num_runs, serve.num_asked) == (int(status != "RUNNING"), 1)
        # It has just answered, so it is taken to be there; until a replica is lost.
        assert await starts.ready("some/base") is serve
        assert serve.num_asked == 1
        starts.note_loss("some/base")
        assert await starts.ready("some/base") is serve
        assert serve.num_asked == 2

    run(test, status)


def test_caller_who_does_not_wait_is_told_when_to_come_back(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        with pytest.raises(
            CapacityError, match=r"some/base is still loading after a wait of 0 s \(the request's `Prefer: wait`\)"
        ) as caught:
            await starts.ready("some/base", 0.0)
        assert caught.value.retry_after_s > 0
        # The start goes on, so the next one who asks finds it.
        serve.is_ready.set()
        assert await starts.ready("some/base", 5.0) is serve
        assert serve.num_asked == 1

    run(test, None)


def test_start_that_takes_too_long_says_so(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        with pytest.raises(CapacityError, match="SIENN_ENGINE_START_TIMEOUT_S"):
            await starts.ready("some/base")
        await until(lambda: serve.num_cancelled == 1)

    run(test, None, engine_start_timeout_s=0.1)


def test_engine_that_cannot_be_started_says_why(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready("some/base"))
        await until(lambda: serve.num_asked == 1)
        serve.set_status("DEPLOY_FAILED", "no such weights")
        with pytest.raises(EngineError, match="couldn't be started: no such weights"):
            await waiting
        # The next one who asks starts it anew.
        serve.is_ready.set()
        assert await starts.ready("some/base") is serve
        assert serve.num_runs == 2

    run(test, None)


def test_engine_that_is_deleted_meanwhile_is_not_waited_for(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready("some/base"))
        await until(lambda: serve.num_asked == 1)
        serve.applications.clear()
        with pytest.raises(EngineError, match="it is gone"):
            await waiting

    run(test, None)


FULL = BackPressureError(num_queued_requests=64, max_queued_requests=64)


def test_engine_with_a_full_queue_is_there_if_it_has_a_replica(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        serve.errors = [FULL] * 100
        waiting = asyncio.create_task(starts.ready("some/base"))
        await until(lambda: serve.num_asked == 3)
        assert not waiting.done()
        serve.num_replicas = 1
        assert await waiting is serve
        assert serve.errors

    run(test, "RUNNING")


def test_handle_that_does_not_know_of_the_new_deployment_yet_is_asked_again(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        serve.errors = [DeploymentUnavailableError(DeploymentID("Engine", APPLICATION))] * 2
        serve.is_ready.set()
        assert await starts.ready("some/base") is serve
        assert serve.num_asked == 3

    run(test, "DEPLOY_FAILED")


@pytest.mark.parametrize(("trigger", "fails"), [("REPLICA_STARTUP_FAILED", True), ("HEALTH_CHECK_FAILED", False)])
def test_engine_that_cannot_come_back_says_why(run: Callable[..., None], trigger: str, fails: bool) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready("some/base", 5.0))
        await until(lambda: serve.num_asked == 1)
        serve.set_status("UNHEALTHY", "out of memory", trigger)
        if fails:
            with pytest.raises(EngineError, match="couldn't be started: out of memory"):
                await waiting
        else:
            num_looks = serve.num_looks
            await until(lambda: serve.num_looks > num_looks + 1)
            serve.is_ready.set()
            assert await waiting is serve

    run(test, "RUNNING")


def test_answer_to_what_was_asked_before_a_loss_tells_nothing(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        before = time.monotonic()
        starts.note_loss("some/base")
        starts.note_answer("some/base", before)
        assert not starts.is_heard("some/base")
        starts.note_answer("some/base", time.monotonic() + 1.0)
        assert starts.is_heard("some/base")

    run(test, "RUNNING")
