"""Streams and WebSockets end with the credentials that they were opened with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.access.principals import Scope
from sienn_ray.access.secret_texts import sha256_of
from sienn_ray.api.access import key_lookup, open_answers, session_lookup
from sienn_ray.api.app import create_app
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.made_credentials import COOKIE
from tests.unit.api.access.test_authentication import key_of

HERE = "https://sienn.example.org"
PAGE = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
STREAMS = ["/api/events/jobs/ada-job", "/api/events", "/api/events/metrics"]
SOCKETS = ["/api/ws/jobs/ada-job", "/api/ws/events", "/api/ws/metrics"]
NUM_LOOKS = 3


class EndlessLogs:
    """Logs in which nothing comes after the first line."""

    async def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> AsyncGenerator[bytes]:
        yield b"step 1\n"
        await asyncio.Event().wait()


@pytest.fixture
def tracker(tmp_path: Path) -> InProcessTracker:
    tracker = InProcessTracker(Settings(env="test", home=tmp_path / "home"))
    tracker.put(
        dataset_record(owner="ada"),
        job_record(id="ada-job", owner="ada", status=JobStatus.RUNNING, attempt=1, submission_id="run-1"),
    )
    return tracker


@pytest.fixture
def client(tmp_path: Path, tracker: InProcessTracker, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of a service that looks often, and remembers nothing."""
    monkeypatch.setattr(open_answers, "INTERVAL_S", 0.01)
    monkeypatch.setattr(key_lookup, "LIFETIME_S", 0.0)
    monkeypatch.setattr(session_lookup, "LIFETIME_S", 0.0)
    settings = Settings(env="test", home=tmp_path / "home", auth="on", token_key_lifetime_s=3600)
    app = create_app(fake_backends(settings, tracker=tracker, job_logs=EndlessLogs()))
    with TestClient(app, base_url=HERE) as client:
        yield client


def at_look(number: int, change: Callable[[], Any]) -> Callable[..., None]:
    """Make a change before the tracker is asked for the so-manieth time."""
    num_looks = 0

    def look(*_: Any) -> None:
        nonlocal num_looks
        num_looks += 1
        if num_looks == number:
            change()

    return look


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def last_event(text: str) -> tuple[str, Any]:
    name, data = text.strip().split("\n\n")[-1].splitlines()[-2:]
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.mark.parametrize("path", STREAMS)
def test_a_revoked_key_hears_no_more(client: TestClient, tracker: InProcessTracker, path: str) -> None:
    key = key_of(tracker, "ada", Scope.READ, key_id="key-1")
    tracker.before["api_key_of_prefix"] = at_look(NUM_LOOKS, lambda: tracker.actor.revoke_api_key("key-1"))
    response = client.get(path, headers=bearer(key))
    assert response.status_code == 200
    name, data = last_event(response.text)
    assert (name, data["status_code"]) == ("error", 401)
    assert "has been revoked" in data["detail"]


@pytest.mark.parametrize("path", SOCKETS)
def test_a_socket_of_a_revoked_key_is_closed(client: TestClient, tracker: InProcessTracker, path: str) -> None:
    key = key_of(tracker, "ada", Scope.READ, key_id="key-1")
    tracker.before["api_key_of_prefix"] = at_look(NUM_LOOKS, lambda: tracker.actor.revoke_api_key("key-1"))
    with client.websocket_connect(f"wss://sienn.example.org{path}", headers=bearer(key)) as socket:
        messages = [socket.receive()]
        while messages[-1]["type"] != "websocket.close":
            messages.append(socket.receive())
    assert messages[0]["type"] == "websocket.send"
    assert messages[-1]["code"] == 1008
    assert "has been revoked" in messages[-1]["reason"]


def test_a_log_that_is_followed_ends_and_says_why(client: TestClient, tracker: InProcessTracker) -> None:
    key = key_of(tracker, "ada", Scope.READ, key_id="key-1")
    tracker.before["api_key_of_prefix"] = at_look(NUM_LOOKS, lambda: tracker.actor.revoke_api_key("key-1"))
    text = client.get("/api/jobs/ada-job/logs?follow=true", headers=bearer(key)).text
    first, *_, last = text.splitlines()
    assert first == "step 1"
    assert last.startswith("(the API key 'a key' has been revoked at ")


def test_an_ended_session_hears_no_more(client: TestClient, tracker: InProcessTracker) -> None:
    client.post("/api/auth/session", headers=bearer(key_of(tracker, "ada", Scope.READ)))
    sha256 = sha256_of(client.cookies[COOKIE])
    tracker.before["session_of_hash"] = at_look(NUM_LOOKS, lambda: tracker.actor.end_session(sha256))
    name, data = last_event(client.get("/api/events", headers=PAGE).text)
    assert (name, data["detail"]) == ("error", "the session has been ended; log in again")


def test_an_expired_token_hears_no_more(client: TestClient, tracker: InProcessTracker) -> None:
    key = key_of(tracker, "ada", Scope.READ)
    form = {"grant_type": "client_credentials", "client_id": key.split("_")[1], "client_secret": key}
    token = client.post("/api/auth/token", data=form).json()["access_token"]
    tokens = client.app.state.credentials.tokens  # type: ignore[attr-defined]

    def expire() -> None:
        tokens._clock = lambda: time.time() + 3600

    tracker.before["api_key_of_prefix"] = at_look(NUM_LOOKS, expire)
    name, data = last_event(client.get("/api/events", headers=bearer(token)).text)
    assert (name, data["status_code"]) == ("error", 401)
    assert "has expired at" in data["detail"]


def test_it_goes_on_while_nobody_can_say(client: TestClient, tracker: InProcessTracker) -> None:
    key = key_of(tracker, "ada", Scope.READ, key_id="key-1")

    def be_away() -> None:
        raise CapacityError("the tracker is away")

    away, revoked = at_look(NUM_LOOKS, be_away), at_look(NUM_LOOKS + 1, lambda: tracker.actor.revoke_api_key("key-1"))

    def look(*args: Any) -> None:
        revoked(*args)
        away(*args)

    tracker.before["api_key_of_prefix"] = look
    assert "has been revoked" in last_event(client.get("/api/events", headers=bearer(key)).text)[1]["detail"]


def test_an_open_stream_does_not_keep_a_session_from_being_idle(client: TestClient, tracker: InProcessTracker) -> None:
    client.post("/api/auth/session", headers=bearer(key_of(tracker, "ada", Scope.READ)))
    sessions = client.app.state.credentials.sessions  # type: ignore[attr-defined]
    begun = sessions._now()
    timeout_s = sessions._idle_timeout_s
    num_looks = 0

    def grow_older(*_: Any) -> None:
        nonlocal num_looks
        num_looks += 1
        # The request itself is the first look; then time passes.
        age_s = 0 if num_looks < NUM_LOOKS else (num_looks - NUM_LOOKS + 1) * timeout_s / 3
        sessions._now = lambda: begun + timedelta(seconds=age_s)

    tracker.before["session_of_hash"] = grow_older
    name, data = last_event(client.get("/api/events", headers=PAGE).text)
    assert (name, data["detail"]) == ("error", "the session has been idle for too long; log in again")
    assert tracker.calls.count("touch_session") == 0
