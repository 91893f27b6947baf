"""Clients that send or read too slowly are given up; the server's own pace is never too slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sienn_ray.api.http.transfer_rates import TransferRates

WINDOW_S = 0.02
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
App = Callable[[Any, Any, Any], Awaitable[None]]


def run(app: App, receive: Any, send: Any, *, min_bytes_per_s: int = 1_000) -> None:
    limited = TransferRates(app, min_bytes_per_s, WINDOW_S)
    asyncio.run(asyncio.wait_for(limited(dict(SCOPE), receive, send), 20))


async def nowhere(message: Any) -> None:
    """A client that takes everything at once."""


async def read_all(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("num_bytes", [0, 1])
def test_a_body_that_comes_drop_by_drop_is_given_up(num_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    async def drip() -> Any:
        await asyncio.sleep(WINDOW_S / 4)
        return {"type": "http.request", "body": b"x" * num_bytes, "more_body": True}

    with pytest.raises(HTTPException) as caught:
        run(read_all, drip, nowhere)
    assert caught.value.status_code == 408
    assert (
        "bytes in 0.02 s (SIENN_TRANSFER_WINDOW_S), and SIENN_TRANSFER_MIN_BYTES_PER_S is 1000" in caught.value.detail
    )
    assert "it is given up" in caplog.text


def test_a_body_that_never_comes_is_given_up() -> None:
    async def silence() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(HTTPException, match="the body came too slowly: 0 bytes"):
        run(read_all, silence, nowhere)


def test_a_body_that_comes_fast_enough_may_take_many_windows() -> None:
    num_left = 40

    async def steady() -> Any:
        nonlocal num_left
        num_left -= 1
        await asyncio.sleep(WINDOW_S / 10)
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": num_left > 0}

    run(read_all, steady, nowhere)
    assert num_left == 0


def test_a_slow_server_is_no_slow_client() -> None:
    num_left = 5

    async def at_once() -> Any:
        nonlocal num_left
        num_left -= 1
        return {"type": "http.request", "body": b"x", "more_body": num_left > 0}

    async def slowly(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive())["more_body"]
            await asyncio.sleep(WINDOW_S)

    run(slowly, at_once, nowhere)
    assert num_left == 0


def test_who_has_sent_all_may_wait_for_the_answer() -> None:
    whole = [{"type": "http.request", "body": b"", "more_body": False}]

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * WINDOW_S):
                await receive()

    async def receive() -> Any:
        if whole:
            return whole.pop()
        await asyncio.Event().wait()

    run(wait, receive, nowhere)


def test_a_client_that_does_not_read_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def download(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"y" * 10, "more_body": True})
        finally:
            ended.append("download")

    async def full(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def silence() -> Any:
        await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING), pytest.raises(ClientDisconnect):
        run(download, silence, full)
    assert ended == ["download"]
    assert "the client read 0 bytes in 0.02 s (SIENN_TRANSFER_WINDOW_S)" in caplog.text
