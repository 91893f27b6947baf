"""Live updates, over a real tracker: each once, in order, over reconnects, for many listeners at the price of one."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from sienn_ray.api.deps import Backends
from sienn_ray.api.live import hub as hub_module
from sienn_ray.api.live import updates as updates_module
from sienn_ray.api.live.hub import LiveHub
from sienn_ray.api.live.shared_numbers import SharedNumbers
from sienn_ray.api.live.updates import Update, Updates, Wish, all_updates, job_updates
from sienn_ray.errors import CapacityError, InvalidInputError, NotFoundError
from sienn_ray.jobs.news_schema import NewsCursor
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import news_store
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker

INTERVAL_S = 0.01
NUM_STEPS = 40
LIMIT_S = 20


@pytest.fixture
def backends(settings: Settings, tracker: InProcessTracker) -> Backends:
    tracker.put(dataset_record(), job_record(status=JobStatus.RUNNING, attempt=1))
    return fake_backends(settings, tracker=tracker)


@pytest.fixture
def hub(backends: Backends) -> LiveHub:
    return LiveHub(backends, INTERVAL_S)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, LIMIT_S))


async def report(tracker: InProcessTracker, step: int) -> None:
    loss = 1 / step
    phase = Phase.EVALUATING if step % 5 == 0 else Phase.TRAINING
    progress = Progress(
        phase=phase, message=f"step {step}", percent=step, current_step=step, current_epoch=1, current_loss=loss
    )
    await tracker.report("job-1", 1, progress)


async def train(tracker: InProcessTracker, pause: Callable[[], float] = lambda: INTERVAL_S) -> None:
    for step in range(1, NUM_STEPS + 1):
        await report(tracker, step)
        await asyncio.sleep(pause())
    await tracker.cancel_job("job-1")


async def collected(updates: Updates, number: int | None = None) -> list[Update]:
    """Updates up to a number, or all of them."""
    found: list[Update] = []
    async for some in updates:
        found += some
        if number is not None and len(found) >= number:
            break
    await updates.aclose()
    return found[:number]


def seqs(updates: list[Update]) -> list[int]:
    return [json.loads(each.data)["seq"] for each in updates if each.name == "event"]


def steps(updates: list[Update]) -> list[int]:
    return [json.loads(each.data)["step"] for each in updates if each.name == "point"]


def statuses(updates: list[Update]) -> list[Any]:
    return [json.loads(each.data) for each in updates if each.name == "status"]


def events_of(tracker: InProcessTracker) -> list[int]:
    return [event.seq for event in tracker.actor.events("job-1", 0, 1000)]


def test_a_listener_is_told_all_once_and_in_order(backends: Backends, tracker: InProcessTracker, hub: LiveHub) -> None:
    async def listen() -> list[Update]:
        updates = job_updates(backends, hub, "job-1", Wish())
        [first] = await anext(updates)
        work = asyncio.create_task(train(tracker))
        found = await collected(updates)
        await work
        return [first, *found]

    found = run(listen())
    assert found[0].name == "status"
    assert (statuses(found)[0]["status"], statuses(found)[-1]["status"]) == ("running", "cancelled")
    assert steps(found) == list(range(1, NUM_STEPS + 1))
    assert seqs(found) == events_of(tracker)
    assert (found[-1].name, json.loads(found[-1].data)) == ("end", {"detail": "the job is cancelled"})
    assert hub.num_listeners == 0


@pytest.mark.parametrize("seed", range(5))
def test_reconnects_lose_and_repeat_nothing(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, seed: int
) -> None:
    chance = random.Random(seed)

    async def listen() -> list[Update]:
        work = asyncio.create_task(train(tracker, lambda: chance.choice([0, 0, INTERVAL_S])))
        found: list[Update] = []
        last_id: str | None = "0.0"
        while not found or found[-1].name != "end":
            part = await collected(job_updates(backends, hub, "job-1", Wish(last_id)), chance.randint(1, 7))
            found += part
            last_id = next((each.id for each in reversed(part) if each.id is not None), last_id)
            await asyncio.sleep(chance.choice([0, INTERVAL_S]))
        await work
        return found

    found = run(listen())
    assert steps(found) == list(range(1, NUM_STEPS + 1))
    assert seqs(found) == events_of(tracker)


def test_many_listeners_cost_one_question(backends: Backends, tracker: InProcessTracker, hub: LiveHub) -> None:
    async def listen() -> list[list[Update]]:
        streams = [job_updates(backends, hub, "job-1", Wish()) for _ in range(100)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        listeners = [asyncio.create_task(collected(stream)) for stream in streams]
        await asyncio.sleep(5 * INTERVAL_S)
        assert hub.num_listeners == 100
        before = tracker.calls.count("news")
        num_rounds = 0
        original = hub._ask

        async def counted() -> None:
            nonlocal num_rounds
            num_rounds += 1
            await original()

        hub._ask = counted  # type: ignore[method-assign]
        await train(tracker)
        num_asked = tracker.calls.count("news") - before
        assert num_asked < 2 * num_rounds + 2 < NUM_STEPS * 10
        return list(await asyncio.gather(*listeners))

    found = run(listen())
    assert {each[-1].name for each in found} == {"end"}
    assert len({tuple(steps(each)) for each in found}) == 1
    assert hub.num_listeners == 0


def test_nobody_is_asked_once_nobody_listens(backends: Backends, tracker: InProcessTracker, hub: LiveHub) -> None:
    async def listen() -> None:
        await collected(job_updates(backends, hub, "job-1", Wish()), 1)
        await asyncio.sleep(3 * INTERVAL_S)
        before = tracker.calls.count("news")
        await asyncio.sleep(5 * INTERVAL_S)
        assert tracker.calls.count("news") == before
        await collected(job_updates(backends, hub, "job-1", Wish()), 1)

    run(listen())


def test_who_takes_nothing_is_let_go_with_a_word(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_WAITING", 5)

    async def listen() -> list[Update]:
        updates = job_updates(backends, hub, "job-1", Wish())
        first = await anext(updates)
        second = asyncio.create_task(anext(updates))
        await train(tracker)
        await asyncio.sleep(5 * INTERVAL_S)
        return [*first, *(await second), *(await collected(updates))]

    found = run(listen())
    assert found[-1].name == "lagging"
    assert "come back with the id of the last one" in json.loads(found[-1].data)["detail"]
    again = run(collected(job_updates(backends, LiveHub(backends, INTERVAL_S), "job-1", Wish(found[-2].id))))
    assert steps(found) + steps(again) == list(range(1, NUM_STEPS + 1))


def test_a_job_at_rest_is_told_and_that_is_all(backends: Backends, tracker: InProcessTracker, hub: LiveHub) -> None:
    run(tracker.cancel_job("job-1"))
    found = run(collected(job_updates(backends, hub, "job-1", Wish())))
    assert [each.name for each in found] == ["status", "end"]


def test_a_deleted_job_ends_its_updates(backends: Backends, tracker: InProcessTracker, hub: LiveHub) -> None:
    async def listen() -> list[Update]:
        updates = job_updates(backends, hub, "job-1", Wish())
        found = await anext(updates)
        with tracker._database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM jobs WHERE id = 'job-1'")
        return found + await collected(updates)

    assert json.loads(run(listen())[-1].data) == {"detail": "the job was deleted"}


def test_heartbeats_come_while_nothing_happens(
    backends: Backends, hub: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates_module, "HEARTBEAT_S", 0.02)
    found = run(collected(job_updates(backends, hub, "job-1", Wish()), 4))
    assert [each.name for each in found][1:] == ["heartbeat"] * 3
    assert found[1].as_event() == b": heartbeat\n\n"


def test_the_tracker_s_restart_is_waited_for(backends: Backends, tracker: InProcessTracker, hub: LiveHub) -> None:
    async def listen() -> list[Update]:
        updates = job_updates(backends, hub, "job-1", Wish())
        found = await anext(updates)
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        await asyncio.sleep(5 * INTERVAL_S)
        tracker.fail_with(None)
        await report(tracker, 1)
        return found + await collected(updates, 2)

    assert {"event", "point"} == {each.name for each in run(listen())[1:]}


class TestAllJobs:
    @pytest.mark.parametrize(("owner", "heard"), [("ada", {"of-ada"}), (None, {"job-1", "of-ada"})])
    @pytest.mark.parametrize("last_id", ["0.0", None])
    def test_an_owner_hears_of_their_own(
        self,
        backends: Backends,
        tracker: InProcessTracker,
        hub: LiveHub,
        owner: str | None,
        heard: set[str],
        last_id: str | None,
    ) -> None:
        tracker.put(job_record(id="of-ada", owner="ada"))

        async def listen() -> list[Update]:
            updates = all_updates(hub, owner, last_id)
            found = await anext(updates)
            await report(tracker, 1)
            await tracker.pause_job("of-ada")
            while json.loads(found[-1].data).get("kind") != "paused":
                found += await anext(updates)
            await updates.aclose()
            return found

        found = run(listen())
        assert found[0].name == "heartbeat"
        assert {json.loads(each.data)["job_id"] for each in found[1:]} == heard

    def test_what_others_did_costs_a_listener_nothing(
        self, backends: Backends, tracker: InProcessTracker, hub: LiveHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker.put(job_record(id="of-ada", owner="ada"))
        monkeypatch.setattr(news_store, "MAX_EVENTS", 1)

        async def listen() -> None:
            await tracker.pause_job("of-ada")
            for step in range(1, NUM_STEPS + 1):
                await report(tracker, step)
            asked = []
            tracker.before["news"] = lambda query: asked.append(query)
            updates = all_updates(hub, "ada", "0.0")
            found = await collected(updates, 2)
            assert [each.name for each in found] == ["heartbeat", "event"]
            assert {query.owner for query in asked if query.after == NewsCursor()} == {"ada"}

        run(listen())


def test_who_comes_while_the_tracker_is_away_is_told(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub
) -> None:
    async def listen() -> None:
        original = tracker.send

        async def send(method: str, *args: Any) -> Any:
            if method == "news":
                raise CapacityError("the job tracker is restarting")
            return await original(method, *args)

        tracker.send = send  # type: ignore[method-assign]
        with pytest.raises(CapacityError, match="the job tracker is restarting"):
            await collected(job_updates(backends, hub, "job-1", Wish()), 1)

    run(listen())
    assert hub.num_listeners == 0


@pytest.mark.parametrize("last_id", ["x", "", "1"])
def test_an_id_that_nobody_was_told_is_named(backends: Backends, hub: LiveHub, last_id: str) -> None:
    with pytest.raises(InvalidInputError, match="Last-Event-ID isn't the id of an event"):
        run(collected(job_updates(backends, hub, "job-1", Wish(last_id)), 1))


def test_a_job_that_is_not_there_has_no_updates(backends: Backends, hub: LiveHub) -> None:
    with pytest.raises(NotFoundError):
        run(collected(job_updates(backends, hub, "other", Wish()), 1))
    assert hub.num_listeners == 0


class TestOverHttp:
    @pytest.fixture(autouse=True)
    def _job(self, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(), job_record(status=JobStatus.RUNNING, attempt=1))
        run(report(tracker, 1))

    def test_events_have_names_ids_and_json(self, client: TestClient, tracker: InProcessTracker) -> None:
        response = client.get("/api/events/jobs/job-1?limit=3", headers={"Last-Event-ID": "0.0"})
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = [
            dict(line.split(": ", 1) for line in block.splitlines()) for block in response.text.split("\n\n")[:-1]
        ]
        assert [block["event"] for block in blocks] == ["status", "event", "point"]
        assert json.loads(blocks[0]["data"])["job_id"] == "job-1"
        assert json.loads(blocks[2]["data"])["step"] == 1
        rest = client.get("/api/events/jobs/job-1?limit=1", headers={"Last-Event-ID": blocks[2]["id"]})
        assert rest.text.startswith(f"retry: 1000\nid: {blocks[2]['id']}\nevent: status\n")
        # A browser's URL stays as it was when it comes back with the header.
        path = "/api/events/jobs/job-1?limit=1&last_event_id=0.0.0.0"
        assert client.get(path, headers={"Last-Event-ID": blocks[2]["id"]}).text == rest.text

    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [
            ("/api/events/jobs/other", {}, 404),
            ("/api/events/jobs/job-1", {"Last-Event-ID": "x"}, 400),
            ("/api/events/jobs/job-1?limit=0", {}, 422),
            ("/api/events", {"Last-Event-ID": "x"}, 400),
        ],
    )
    def test_what_is_wrong_has_its_status(
        self, client: TestClient, path: str, headers: dict[str, str], status: int
    ) -> None:
        response = client.get(path, headers=headers)
        assert (response.status_code, response.json()["status_code"]) == (status, status)

    def test_the_numbers_come_again_and_again(self, app: FastAPI, client: TestClient) -> None:
        app.state.shared_numbers = SharedNumbers(0.01)
        response = client.get("/api/events/metrics?limit=2")
        blocks = response.text.split("\n\n")[:-1]
        assert len(blocks) == 2
        assert json.loads(blocks[1].splitlines()[1].removeprefix("data: "))["application"]["jobs"]["running"] == 1

    def test_so_many_listen_and_no_more(self, settings: Settings, tracker: InProcessTracker) -> None:
        from sienn_ray.api.app import create_app

        few = settings.model_copy(update={"max_listeners": 1})
        with TestClient(create_app(fake_backends(few, tracker=tracker))) as client:
            with client.websocket_connect("/api/ws/jobs/job-1") as socket:
                socket.receive_text()
                refused = client.get("/api/events/jobs/job-1?limit=1")
                assert refused.status_code == 503
                assert "1 listeners to live updates open" in refused.json()["detail"]
            assert client.get("/api/events/jobs/job-1?limit=1").status_code == 200


class TestSockets:
    @pytest.fixture(autouse=True)
    def _job(self, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(), job_record(status=JobStatus.RUNNING, attempt=1))
        run(report(tracker, 1))

    def test_messages_are_the_same_updates(self, client: TestClient, tracker: InProcessTracker) -> None:
        with client.websocket_connect("/api/ws/jobs/job-1?last_event_id=0.0") as socket:
            messages = [socket.receive_json() for _ in range(3)]
            assert [each["event"] for each in messages] == ["status", "event", "point"]
            tracker.actor.cancel_job("job-1")
            while messages[-1]["event"] != "end":
                messages.append(socket.receive_json())
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_json()
        assert ended.value.code == 1000
        assert messages[-1]["data"] == {"detail": "the job is cancelled"}

    def test_all_jobs_and_numbers(self, client: TestClient) -> None:
        with client.websocket_connect("/api/ws/events?last_event_id=0.0") as socket:
            assert [socket.receive_json()["event"] for _ in range(2)] == ["heartbeat", "event"]
        with client.websocket_connect("/api/ws/metrics") as socket:
            assert socket.receive_json()["data"]["application"]["jobs"]["total"] == 1

    def test_a_job_that_is_not_there_refuses_the_handshake(self, client: TestClient) -> None:
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/api/ws/jobs/other"):
            pass
        assert denied.value.status_code == 404

    def test_a_parameter_that_is_misspelt_refuses_the_handshake(self, client: TestClient) -> None:
        path = "/api/ws/jobs/job-1?last_id=1.2"
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path):
            pass
        assert denied.value.status_code == 422
        assert denied.value.json()["detail"].startswith("query.last_id: isn't known here")

    def test_a_client_that_goes_frees_everything(self, app: FastAPI, client: TestClient) -> None:
        with client.websocket_connect("/api/ws/jobs/job-1") as socket:
            socket.receive_text()
            assert app.state.live_hub.num_listeners == 1
        assert app.state.live_hub.num_listeners == 0

    def test_who_talks_is_shown_the_door(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sienn_ray.api.live.sockets._MAX_MESSAGES", 3)
        with client.websocket_connect("/api/ws/jobs/job-1") as socket:
            for _ in range(3):
                socket.send_text("hello")
            messages = [socket.receive()]
            while messages[-1]["type"] != "websocket.close":
                messages.append(socket.receive())
        assert messages[-1]["code"] == 1008
