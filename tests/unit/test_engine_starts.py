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

from deployments import engine_applications, engine_room, engine_starts
from deployments.engine_applications import EngineApplications
from deployments.engine_starts import EngineStarts
from deployments.engine_versions import EngineVersion
from sienn_ray.catalog import BaseModelSource, FoundBaseModel
from sienn_ray.errors import CapacityError, EngineError, InvalidBaseModelError
from sienn_ray.inference.applications import EngineKey, application_of, deployment_name
from sienn_ray.settings import Settings

BASE = EngineKey("some/base")
APPLICATION = "engine-some--base"
# No engine of these tests is older than the service.
NEW = EngineVersion("0" * 16, built_at=1).name


MARKER = SimpleNamespace(status_trigger=SimpleNamespace(value="UNSPECIFIED"), replica_states={}, message="")


class FakeServe:
    """Serve with one application at the most, whose handle is the fake itself.

    Attributes:
        is_ready: Set when a replica answers.
        errors: What the first answers are.
        num_replicas: Replicas that run.
        deployment: Its engine's, which tells the kind; what is deployed anew is ours.
    """

    def __init__(self, status: str | None) -> None:
        self.is_ready = asyncio.Event()
        self.errors: list[Exception] = []
        self.num_runs = self.num_asked = self.num_cancelled = 0
        self.num_replicas = self.num_looks = 0
        self.deployment = "Engine"
        self.applications: dict[str, Any] = {}
        if status is not None:
            self.set_status(status)

    def set_status(self, status: str, message: str = "", trigger: str = "UNSPECIFIED") -> None:
        fake = self

        told = message

        class Deployment:
            message = told
            status_trigger = SimpleNamespace(value=trigger)

            @property
            def replica_states(self) -> dict[str, int]:
                return {"RUNNING": fake.num_replicas}

        self.applications[APPLICATION] = SimpleNamespace(
            status=SimpleNamespace(value=status),
            message="Failed to update the deployments ['Engine'].",
            deployments={self.deployment: Deployment(), NEW: MARKER},
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
        self.deployment = "Engine"
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


def no_commit(base_model: str, hub_timeout_s: float) -> FoundBaseModel:
    """A model of no known commit."""
    return FoundBaseModel(BaseModelSource.PACKAGE, None)


def starts_of(find: Callable[[str, float], FoundBaseModel], **settings: Any) -> EngineStarts:
    """Starts of engines that reserve no memory."""
    chosen = Settings(env="test", engine_num_gpus=0, **settings)
    return EngineStarts(chosen, EngineApplications(chosen, find=find, memory_bytes=lambda *_: 0))


def use(monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    """Put a fake in the place of Serve."""
    for module in (engine_starts, engine_room):
        monkeypatch.setattr(module, "serve", serve)
    monkeypatch.setattr(engine_applications, "serve", serve)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine with starts and a fake."""
    monkeypatch.setattr(
        engine_applications, "build_engine", lambda base_model, *_, **__: f"application of {base_model}"
    )
    monkeypatch.setattr(engine_starts, "_LOOK_S", 0.01)
    monkeypatch.setattr(engine_starts, "_RETRY_S", 0.001)
    monkeypatch.setattr(engine_starts, "_SHORTEST_WAIT_S", 0.05)

    def run(test: Callable[[EngineStarts, FakeServe], Any], status: str | None, **settings: Any) -> None:
        async def main() -> None:
            serve = FakeServe(status)
            use(monkeypatch, serve)
            await test(starts_of(no_commit, **settings), serve)

        asyncio.run(main())

    return run


@pytest.mark.parametrize("status", [None, "DEPLOY_FAILED", "RUNNING"])
def test_all_who_ask_share_one_start(run: Callable[..., None], status: str | None) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = [asyncio.create_task(starts.ready(BASE)) for _ in range(5)]
        await until(lambda: serve.num_asked == 1)
        assert not any(each.done() for each in waiting)
        serve.is_ready.set()
        assert await asyncio.gather(*waiting) == [serve] * 5
        assert (serve.num_runs, serve.num_asked) == (int(status != "RUNNING"), 1)
        # It has just answered, so it is taken to be there; until a replica is lost.
        assert await starts.ready(BASE) is serve
        assert serve.num_asked == 1
        starts.note_loss(BASE)
        assert await starts.ready(BASE) is serve
        assert serve.num_asked == 2

    run(test, status)


def test_caller_who_does_not_wait_is_told_when_to_come_back(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        with pytest.raises(
            CapacityError, match=r"some/base is still loading after a wait of 0 s \(the request's `Prefer: wait`\)"
        ) as caught:
            await starts.ready(BASE, 0.0)
        assert caught.value.retry_after_s > 0
        # The start goes on, so the next one who asks finds it.
        serve.is_ready.set()
        assert await starts.ready(BASE, 5.0) is serve
        assert serve.num_asked == 1

    run(test, None)


def test_start_that_takes_too_long_says_so(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        with pytest.raises(CapacityError, match="SIENN_ENGINE_START_TIMEOUT_S"):
            await starts.ready(BASE)
        await until(lambda: serve.num_cancelled == 1)

    run(test, None, engine_start_timeout_s=1.0)  # long enough to come to the probe


def test_engine_that_cannot_be_started_says_why(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready(BASE))
        await until(lambda: serve.num_asked == 1)
        serve.set_status("DEPLOY_FAILED", "torch.OutOfMemoryError: no such weights, said ActorDiedError()")
        with pytest.raises(EngineError, match=r"couldn't be started: .*: no such weights"):
            await waiting
        # The next one who asks starts it anew.
        serve.is_ready.set()
        assert await starts.ready(BASE) is serve
        assert serve.num_runs == 2

    run(test, None)


@pytest.mark.parametrize(
    "message",
    [
        "3 times in a row. See controller logs for details. Error:\nActorDiedError()",
        "3 times in a row. Error:\nException when allocating Replica:\nTraceback (most recent call last):\n"
        "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n\tpid: 7\n",
        "3 times in a row. Error:\nray.exceptions.OutOfMemoryError: Task was killed due to low memory",
        "3 times in a row. Error:\nNodeDiedError('the node is gone')",
    ],
)
def test_engine_that_was_killed_while_it_started_may_start_later(run: Callable[..., None], message: str) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready(BASE))
        await until(lambda: serve.num_asked == 1)
        serve.set_status("DEPLOY_FAILED", message)
        with pytest.raises(CapacityError, match="was killed each time that it started"):
            await waiting
        serve.is_ready.set()
        assert await starts.ready(BASE) is serve
        assert serve.num_runs == 2

    run(test, None)


def test_where_vllm_cannot_be_started_the_same_request_has_ours_start(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        serve.deployment, serve.num_replicas = "VllmEngine", 1
        serve.set_status("DEPLOYING")
        waiting = asyncio.create_task(starts.ready(BASE, 10.0))
        await until(lambda: serve.num_asked == 1)
        serve.set_status("DEPLOY_FAILED", "no such architecture")
        await until(lambda: serve.num_runs == 1)
        serve.is_ready.set()
        assert await waiting is serve

    run(test, None)


def test_engine_that_is_deleted_meanwhile_is_not_waited_for(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready(BASE))
        await until(lambda: serve.num_asked == 1)
        serve.applications.clear()
        with pytest.raises(EngineError, match="it is gone"):
            await waiting

    run(test, None)


FULL = BackPressureError(num_queued_requests=64, max_queued_requests=64)


def test_engine_with_a_full_queue_is_there_if_it_has_a_replica(run: Callable[..., None]) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        serve.errors = [FULL] * 100
        waiting = asyncio.create_task(starts.ready(BASE))
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
        assert await starts.ready(BASE) is serve
        assert serve.num_asked == 3

    run(test, "DEPLOY_FAILED")


@pytest.mark.parametrize(("trigger", "fails"), [("REPLICA_STARTUP_FAILED", True), ("HEALTH_CHECK_FAILED", False)])
def test_engine_that_cannot_come_back_says_why(run: Callable[..., None], trigger: str, fails: bool) -> None:
    async def test(starts: EngineStarts, serve: FakeServe) -> None:
        waiting = asyncio.create_task(starts.ready(BASE, 5.0))
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
        starts.note_loss(BASE)
        starts.note_answer(BASE, before)
        assert not starts.is_heard(BASE)
        starts.note_answer(BASE, time.monotonic() + 1.0)
        assert starts.is_heard(BASE)

    run(test, "RUNNING")


PINNED = EngineKey("some/base", "a" * 40)
OTHER = EngineKey("some/base", "b" * 40)


def deployed(*names: str) -> Any:
    """What of an application tells which deployments it has."""
    return SimpleNamespace(deployments=dict.fromkeys(names))


@pytest.mark.parametrize(
    ("applications", "found"),
    [
        ({}, {BASE: None, PINNED: None}),
        ({BASE.application: deployed("Engine")}, {BASE: BASE.application, PINNED: None}),
        # What a listed engine has loaded needn't be loaded again.
        (
            {BASE.application: deployed("Engine-aaaaaaaaaaaa")},
            {BASE: BASE.application, PINNED: BASE.application, OTHER: None},
        ),
        ({PINNED.application: deployed("Engine-aaaaaaaaaaaa")}, {BASE: None, PINNED: PINNED.application, OTHER: None}),
    ],
)
def test_an_engine_answers_for_the_commit_that_it_has_loaded(
    applications: dict[str, Any], found: dict[EngineKey, str | None]
) -> None:
    assert {key: application_of(key, applications) for key in found} == found


def test_who_names_no_commit_shares_the_engine_of_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        serve = SeveralEngines()
        use(monkeypatch, serve)
        monkeypatch.setattr(
            engine_applications, "build_engine", lambda base_model, _, revision, **__: (base_model, revision)
        )
        found = FoundBaseModel(BaseModelSource.HUB_CACHE, PINNED.revision)
        starts = starts_of(lambda *_: found)
        assert await starts.ready(PINNED) == await starts.ready(BASE) == PINNED.application
        assert await starts.ready(OTHER) == OTHER.application
        assert serve.run == [("some/base", PINNED.revision), ("some/base", OTHER.revision)]

    asyncio.run(main())


def test_an_engine_starts_where_its_commit_can_not_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(base_model: str, hub_timeout_s: float) -> FoundBaseModel:
        raise InvalidBaseModelError("the hub can't be reached")

    async def main() -> None:
        serve = SeveralEngines()
        use(monkeypatch, serve)
        monkeypatch.setattr(
            engine_applications, "build_engine", lambda base_model, _, revision, **__: (base_model, revision)
        )
        assert await starts_of(out_of_reach).ready(BASE) == BASE.application
        assert serve.run == [("some/base", None)]

    asyncio.run(main())


class SeveralEngines:
    """Serve with engines that are ready at once; the handle of one is its name, with a probe.

    Attributes:
        run: What was deployed.
    """

    def __init__(self) -> None:
        self.applications: dict[str, Any] = {}
        self.run: list[Any] = []

    def status(self) -> SeveralEngines:
        return self

    def RunTarget(self, target: Any, *, name: str, route_prefix: None) -> Any:  # noqa: N802
        return target, name

    def run_many(self, targets: list[Any], *, wait_for_applications_running: bool) -> None:
        for target, name in targets:
            self.run.append(target)
            engine = SimpleNamespace(replica_states={"RUNNING": 1}, status_trigger=SimpleNamespace(value=""))
            self.applications[name] = SimpleNamespace(
                status=SimpleNamespace(value="RUNNING"),
                message="",
                deployments={deployment_name(target[1]): engine, NEW: MARKER},
            )

    def get_app_handle(self, name: str) -> Any:
        class Handle(str):
            @property
            def ready(self) -> Any:
                return SimpleNamespace(remote=lambda: asyncio.sleep(0))

        return Handle(name)
