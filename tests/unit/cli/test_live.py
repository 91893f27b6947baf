"""Updates are followed over connections that break."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from sienn_ray.cli import live
from sienn_ray.cli.live import follow
from tests.unit.cli.running import refused, serving

STATUS = '{"status": "running", "progress": 1, "message": "m", "meta": {"current_epoch": 0, "total_epochs": 1}}'


class Flaky:
    """A service whose connections break as each answer says."""

    def __init__(self) -> None:
        self.answers: list[str | int] = []
        self.last_ids: list[str | None] = []

    async def answer(self, request: Request) -> Response:
        self.last_ids.append(request.headers.get("last-event-id"))
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            return JSONResponse({"detail": f"status {answer}", "status_code": answer}, answer)

        async def pieces() -> AsyncGenerator[str]:
            yield answer
            if "event: end" not in answer and "event: lagging" not in answer:
                raise ConnectionError

        return StreamingResponse(pieces(), media_type="text/event-stream")


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(live, "_PAUSE_S", 0.0)
    flaky = Flaky()
    app = FastAPI()
    app.add_api_route("/api/events/jobs/{job_id}", flaky.answer, response_model=None)
    with serving(app) as url:
        monkeypatch.setenv("SIENN_URL", url)
        yield flaky


def update(name: str, data: str = "{}", update_id: str = "") -> str:
    return (f"id: {update_id}\n" if update_id else "") + f"event: {name}\ndata: {data}\n\n"


def followed() -> list[tuple[str, Any]]:
    return list(follow("/api/events/jobs/job-1"))


def test_a_broken_connection_goes_on_behind_the_last_update(flaky: Flaky) -> None:
    flaky.answers = [
        update("status", update_id="1.5") + ": heartbeat\n\n" + update("point", '{"step": 1}', "1.6"),
        503,
        update("status", update_id="1.6"),
        update("event", '{"seq": 2}', "2.6") + update("lagging"),
        update("end", '{"detail": "the job is completed"}'),
    ]
    assert [name for name, _ in followed()] == ["status", "point", "status", "event", "end"]
    assert flaky.last_ids == [None, "1.6", "1.6", "1.6", "2.6"]


@pytest.mark.parametrize("status", [404, 401, 503])
def test_a_refusal_at_first_is_the_last_word(flaky: Flaky, status: int) -> None:
    flaky.answers = [status]
    assert f"status {status}" in refused("watch", "job-1") or status == 401
    assert flaky.answers == []


def test_a_service_that_stays_away_is_named(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MAX_FAILURES", 2)
    flaky.answers = [update("status", STATUS), *[update("heartbeat").partition("event")[0]] * 5]
    assert "doesn't answer" in refused("watch", "job-1")


def test_a_job_that_is_deleted_meanwhile_is_told(flaky: Flaky) -> None:
    flaky.answers = [update("status", STATUS) + update("end", '{"detail": "the job was deleted"}')]
    assert refused("watch", "job-1") == "the job was deleted"
