"""Requests that take long have places of their own, so that short ones always have room."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from sienn_ray.access.principals import Scope
from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.api.http.places import Kind, Places
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import FakeEngines, FakeJobLogs, dataset_record, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.test_authentication import ADMIN_KEY, key_of

DEADLINE_S = 20
CHAT = {"model": "job-1", "messages": [{"role": "user", "content": "Hello"}]}


class HangingLogs(FakeJobLogs):
    """Logs to which nothing is added."""

    async def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> Any:
        self.asked.append((submission_id, tail, follow))
        yield b""
        await asyncio.Event().wait()


@pytest.fixture
def make_app(app: FastAPI, settings: Settings) -> Callable[..., FastAPI]:
    """Makes the application with other settings, and logs that hang."""

    def make(**changes: Any) -> FastAPI:
        backends: Backends = app.state.backends
        changed = {"settings": settings.model_copy(update=changes), "job_logs": HangingLogs()}
        return create_app(Backends(**{**vars(backends), **changed}))

    return make


class Open:
    """A request whose client waits for the answer, until it is told to leave."""

    def __init__(
        self,
        app: FastAPI,
        method: str,
        path: str,
        query: str = "",
        body: Any = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.messages: list[Any] = []
        self._gone = asyncio.Event()
        self._body = b"" if body is None else json.dumps(body).encode()
        self._is_sent = False
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"content-type", b"application/json"), (b"host", b"test"), *headers],
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)

    async def leave(self) -> None:
        self._gone.set()
        await self.task


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE_S))


def test_followers_beyond_the_limit_are_refused_and_short_requests_are_not(
    make_app: Callable[..., FastAPI], tracker: InProcessTracker
) -> None:
    tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))

    async def test() -> None:
        app = make_app(max_log_followers=2)
        places: Places = app.state.places
        followers = [Open(app, "GET", "/api/jobs/job-1/logs", "follow=true") for _ in range(2)]
        await until(lambda: all(each.messages for each in followers))
        assert places.num_taken(Kind.FOLLOWER) == 2
        async with client_of(app) as client:
            refused = await client.get("/api/jobs/job-1/logs", params={"follow": "true"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert refused.json()["detail"] == (
                "this server has 2 followed logs open, as many as it takes (SIENN_MAX_LOG_FOLLOWERS); "
                "try again in a moment"
            )
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/api/training-status/job-1")).status_code == 200
        for each in followers:
            await each.leave()
        assert places.num_taken(Kind.FOLLOWER) == 0

    run(test())


@pytest.mark.parametrize(
    ("setting", "kind", "path", "query"),
    [
        ("max_log_followers", Kind.FOLLOWER, "/api/jobs/{owner}-job/logs", "follow=true"),
        ("max_listeners", Kind.LISTENER, "/api/events/jobs/{owner}-job", ""),
        ("max_listeners", Kind.LISTENER, "/api/events", ""),
        ("max_listeners", Kind.LISTENER, "/api/events/metrics", ""),
    ],
)
def test_one_owner_leaves_places_for_others(
    make_app: Callable[..., FastAPI], tracker: InProcessTracker, setting: str, kind: Kind, path: str, query: str
) -> None:
    for owner in ("ada", "bob"):
        tracker.put(dataset_record(id=f"{owner}-data", owner=owner))
        running = job_record(id=f"{owner}-job", dataset_id=f"{owner}-data", status=JobStatus.RUNNING, attempt=1)
        tracker.put(running.model_copy(update={"owner": owner}))
    keys = {owner: [key_of(tracker, owner, Scope.READ) for _ in range(2)] for owner in ("ada", "bob")}

    async def test() -> None:
        app = make_app(auth="on", admin_key=SecretStr(ADMIN_KEY), rate_limits="", **{setting: 5})
        places: Places = app.state.places

        def open_as(owner: str, key: str) -> Open:
            return Open(app, "GET", path.format(owner=owner), query, headers=[(b"x-api-key", key.encode())])

        async with client_of(app) as client:

            async def refusal(owner: str, key: str) -> tuple[int, str]:
                url = path.format(owner=owner) + (f"?{query}" if query else "")
                refused = await client.get(url, headers={"X-API-Key": key})
                return refused.status_code, refused.json()["detail"]

            opened = [open_as("ada", key) for key in keys["ada"]]
            await until(lambda: places.num_taken(kind) == 2)
            status, words = await refusal("ada", keys["ada"][0])
            assert status == 429
            assert words.startswith(f"you have 2 {kind} open, as many of the 5 that this server takes")
            opened.append(open_as("bob", keys["bob"][0]))
            await until(lambda: places.num_taken(kind) == 3)
            opened += [open_as("ada", ADMIN_KEY) for _ in range(2)]
            await until(lambda: places.num_taken(kind) == 5)
            assert (await refusal("bob", keys["bob"][0]))[0] == 503
            assert (await refusal("ada", ADMIN_KEY))[0] == 503
            await until(lambda: all(each.messages for each in opened))
        for each in opened:
            await each.leave()
        assert (places.num_taken(kind), places._num_taken_by) == (0, {})

    run(test())


@pytest.mark.parametrize("streams", [True, False])
def test_requests_to_models_beyond_the_limit_are_refused(
    make_app: Callable[..., FastAPI], tracker: InProcessTracker, engines: FakeEngines, streams: bool
) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED, attempt=1))

    async def test() -> None:
        app = make_app(max_open_answers=1)
        engines.hangs = True
        first = Open(app, "POST", "/v1/chat/completions", body={**CHAT, "stream": streams})
        await until(lambda: engines.num_running)
        async with client_of(app) as client:
            refused = await client.post("/v1/chat/completions", json=CHAT)
            assert refused.status_code == 503
            assert "SIENN_MAX_OPEN_ANSWERS" in refused.json()["error"]["message"]
        await first.leave()
        assert app.state.places.num_taken(Kind.ANSWER) == 0

    run(test())


def test_a_request_that_fails_gives_its_place_back(make_app: Callable[..., FastAPI]) -> None:
    async def test() -> None:
        app = make_app(max_downloads=1)
        async with client_of(app) as client:
            for _ in range(3):
                assert (await client.get("/api/download-model/no-such-job")).status_code == 404
        assert app.state.places.num_taken(Kind.DOWNLOAD) == 0

    run(test())


def test_a_log_without_news_ends_with_words(make_app: Callable[..., FastAPI], tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))

    async def test() -> None:
        app = make_app(stream_idle_timeout_s=0.01)
        async with client_of(app) as client:
            response = await client.get("/api/jobs/job-1/logs", params={"follow": "true"})
        assert (response.status_code, response.text) == (
            200,
            "\n(nothing new for 0.01 s, SIENN_STREAM_IDLE_TIMEOUT_S; follow the log again)\n",
        )
        assert app.state.places.num_taken(Kind.FOLLOWER) == 0

    run(test())


def test_events_that_stop_coming_end_with_an_error(
    make_app: Callable[..., FastAPI], tracker: InProcessTracker, engines: FakeEngines
) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED, attempt=1))

    async def test() -> None:
        engines.hangs = True
        async with client_of(make_app(stream_idle_timeout_s=0.01)) as client:
            response = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        *_, last = [line for line in response.text.splitlines() if line]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["message"] == "nothing has come for 0.01 s (SIENN_STREAM_IDLE_TIMEOUT_S); ask again"
        assert engines.num_running == 0

    run(test())
