"""Many uploads at once, and clients that stop, go silent or leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import IO, Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message

from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import BOUNDARY, Part, multipart_body
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.uploading import CSV, UPLOAD, VALIDATE, Answer, is_untouched, messages_of, post, stored

BODY = multipart_body([Part(CSV)])
HALF = multipart_body([Part(CSV)], is_closed=False)
BOTH = pytest.mark.parametrize("path", [UPLOAD, VALIDATE])


class SlowStorage(Storage):
    """Reading a file begins only when `release` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.release = threading.Event()
        self.reading_threads: list[str] = []

    def reading(self, key: str) -> IO[bytes]:
        self.reading_threads.append(threading.current_thread().name)
        assert self.release.wait(30)
        return super().reading(key)


@pytest.fixture
def storage(settings: Settings) -> SlowStorage:
    storage = SlowStorage(settings.storage_url)
    storage.release.set()
    return storage


@pytest.fixture
def make_app(app: FastAPI, settings: Settings) -> Callable[..., FastAPI]:
    """Makes the application with other settings."""

    def make(**changes: Any) -> FastAPI:
        backends: Backends = app.state.backends
        return create_app(Backends(**{**vars(backends), "settings": settings.model_copy(update=changes)}))

    return make


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what} didn't come true"
        await asyncio.sleep(0.005)


async def status_of(app: FastAPI, path: str) -> int:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        return (await client.get(path)).status_code


class Client:
    """Sends half a file, and the rest when it is told to."""

    def __init__(self) -> None:
        self.num_read = 0
        self.go_on = asyncio.Event()

    async def messages(self) -> AsyncIterator[Message]:
        self.num_read += 1
        yield {"type": "http.request", "body": BODY[:100], "more_body": True}
        await self.go_on.wait()
        async for message in messages_of([BODY[100:]]):
            yield message


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@BOTH
def test_uploads_above_the_limit_wait_for_their_turn(
    make_app: Callable[..., FastAPI], storage: SlowStorage, path: str
) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=2)
        clients = [Client() for _ in range(5)]
        tasks = [asyncio.create_task(post(app, client.messages(), path)) for client in clients]
        await until(lambda: sum(client.num_read for client in clients) == 2, "two uploads")
        await asyncio.sleep(0.05)
        assert sum(client.num_read for client in clients) == 2
        assert await status_of(app, "/health") == 200
        assert await status_of(app, "/api/datasets") == 200
        for client in clients:
            client.go_on.set()
        answers = await asyncio.gather(*tasks)
        assert {answer.status for answer in answers} == {201 if path == UPLOAD else 200}
        assert len(stored(storage)) == (15 if path == UPLOAD else 0)

    run(test())


def test_many_uploads_at_once_all_succeed(make_app: Callable[..., FastAPI], storage: SlowStorage) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=8)
        bodies = [BODY if number % 4 else HALF for number in range(100)]
        answers = await asyncio.gather(*(post(app, messages_of([body[:50], body[50:]])) for body in bodies))
        assert [answer.status for answer in answers] == [201 if number % 4 else 400 for number in range(100)]
        assert len({path.split("/")[0] for path in stored(storage)}) == 75

    run(test())


@BOTH
def test_silent_client_is_given_up(
    make_app: Callable[..., FastAPI],
    storage: SlowStorage,
    tracker: InProcessTracker,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=1, upload_idle_timeout_s=0.05)
        answer = await post(app, Client().messages(), path)
        assert answer.status == 408
        assert answer.body["detail"] == (
            "nothing came for 0.05 s (SIENN_UPLOAD_IDLE_TIMEOUT_S) in the middle of the file; send it again"
        )
        assert is_untouched(storage, tracker)
        assert (await post(app, messages_of([BODY]), path)).status in {200, 201}

    run(test())
    assert "an upload is given up: nothing came for 0.05 s" in caplog.text


@BOTH
def test_client_that_sends_byte_by_byte_is_given_up(
    make_app: Callable[..., FastAPI], storage: SlowStorage, tracker: InProcessTracker, path: str
) -> None:
    async def messages() -> AsyncIterator[Message]:
        for byte in BODY[:-1]:
            await asyncio.sleep(0.005)
            yield {"type": "http.request", "body": bytes([byte]), "more_body": True}
        await asyncio.Event().wait()

    async def test() -> None:
        app = make_app(max_concurrent_uploads=1, transfer_min_bytes_per_s=10_000, transfer_window_s=0.05)
        answer = await post(app, messages(), path)
        assert answer.status == 408
        assert "SIENN_TRANSFER_MIN_BYTES_PER_S is 10000" in answer.body["detail"]
        assert is_untouched(storage, tracker)
        assert (await post(app, messages_of([BODY]), path)).status in {200, 201}

    run(test())


@BOTH
def test_upload_that_waits_too_long_for_its_turn_is_sent_away(make_app: Callable[..., FastAPI], path: str) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=1, upload_queue_timeout_s=0.02)
        first, second = Client(), Client()
        running = asyncio.create_task(post(app, first.messages(), path))
        await until(lambda: first.num_read, "the first upload")
        answer = await post(app, second.messages(), path)
        assert (answer.status, second.num_read) == (503, 0)
        assert "1 uploads (SIENN_MAX_CONCURRENT_UPLOADS) have run for 0.02 s" in answer.body["detail"]
        first.go_on.set()
        assert (await running).status in {200, 201}

    run(test())


def test_no_more_uploads_wait_than_may(make_app: Callable[..., FastAPI]) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=1, max_waiting_uploads=1)
        clients = [Client() for _ in range(3)]
        tasks = [asyncio.create_task(post(app, client.messages())) for client in clients]
        answer = await tasks[2]
        assert answer.status == 503
        assert "2 uploads open" in answer.body["detail"]
        assert "SIENN_MAX_WAITING_UPLOADS" in answer.body["detail"]
        for client in clients:
            client.go_on.set()
        assert [(await task).status for task in tasks[:2]] == [201, 201]

    run(test())


def test_slow_client_is_not_a_silent_one(make_app: Callable[..., FastAPI]) -> None:
    async def messages() -> AsyncIterator[Message]:
        for start in range(0, len(BODY), 10):
            await asyncio.sleep(0.02)
            yield {"type": "http.request", "body": BODY[start : start + 10], "more_body": start + 10 < len(BODY)}
        await asyncio.Event().wait()

    async def test() -> None:
        assert (await post(make_app(upload_idle_timeout_s=0.4), messages())).status == 201

    run(test())


def test_empty_messages_are_silence(make_app: Callable[..., FastAPI]) -> None:
    async def messages() -> AsyncIterator[Message]:
        while True:
            await asyncio.sleep(0.01)
            yield {"type": "http.request", "body": b"", "more_body": True}

    async def test() -> None:
        answer = await post(make_app(upload_idle_timeout_s=0.1), messages())
        assert answer.body["detail"].startswith("nothing came for 0.1 s")

    run(test())


@BOTH
@pytest.mark.parametrize("sent", [b"", BODY[:20], HALF, BODY, HALF.removesuffix(b"\r\n") + b"x\n" * 40_000])
def test_client_that_disconnects_leaves_nothing(
    make_app: Callable[..., FastAPI], storage: SlowStorage, tracker: InProcessTracker, sent: bytes, path: str
) -> None:
    async def messages() -> AsyncIterator[Message]:
        yield {"type": "http.request", "body": sent, "more_body": True}
        yield {"type": "http.disconnect"}

    async def test() -> None:
        app = make_app(max_concurrent_uploads=1)
        answer = await post(app, messages(), path)
        assert answer.status == 400
        assert answer.body["detail"] == "the connection closed before the file was whole; send it again"
        assert is_untouched(storage, tracker)
        assert (await post(app, messages_of([BODY]), path)).status in {200, 201}

    run(test())


async def cancelled(task: asyncio.Task[Answer]) -> None:
    """Cancel a request, as Ray Serve does when the client leaves."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@BOTH
def test_request_that_is_cancelled_while_it_receives_leaves_nothing(
    make_app: Callable[..., FastAPI], storage: SlowStorage, tracker: InProcessTracker, path: str
) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=1)
        task = asyncio.create_task(post(app, Client().messages(), path))
        await until(lambda: stored(storage), "a file in storage")
        await cancelled(task)
        assert is_untouched(storage, tracker)
        assert (await post(app, messages_of([BODY]), path)).status in {200, 201}

    run(test())


@BOTH
def test_request_that_is_cancelled_while_rows_are_checked_leaves_nothing(
    make_app: Callable[..., FastAPI], storage: SlowStorage, tracker: InProcessTracker, path: str
) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=1)
        storage.release.clear()
        task = asyncio.create_task(post(app, messages_of([BODY]), path))
        await until(lambda: storage.reading_threads, "a check")
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()  # it waits for its thread
        storage.release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_untouched(storage, tracker)
        assert (await post(app, messages_of([BODY]), path)).status in {200, 201}

    run(test())


def test_request_that_is_cancelled_while_it_waits_for_a_thread_goes_at_once(
    make_app: Callable[..., FastAPI], storage: SlowStorage, tracker: InProcessTracker
) -> None:
    async def test() -> None:
        app = make_app()
        storage.release.clear()
        checked = [asyncio.create_task(post(app, messages_of([BODY]))) for _ in range(2)]
        await until(lambda: len(storage.reading_threads) == 2, "two checks")
        waiting = asyncio.create_task(post(app, messages_of([BODY])))
        await until(lambda: sum(path.endswith("/file") for path in stored(storage)) == 3, "three files")
        await asyncio.sleep(0.05)
        await cancelled(waiting)
        assert sum(path.endswith("/file") for path in stored(storage)) == 2
        storage.release.set()
        assert [(await task).status for task in checked] == [201, 201]

    run(test())


def test_request_that_is_cancelled_while_it_waits_for_a_place_takes_none(make_app: Callable[..., FastAPI]) -> None:
    async def test() -> None:
        app = make_app(max_concurrent_uploads=1)
        first, second = Client(), Client()
        running = asyncio.create_task(post(app, first.messages()))
        await until(lambda: first.num_read, "the first upload")
        waiting = asyncio.create_task(post(app, second.messages()))
        await asyncio.sleep(0.05)
        await cancelled(waiting)
        first.go_on.set()
        assert (await running).status == 201
        assert (await post(app, messages_of([BODY]))).status == 201

    run(test())


def test_record_that_is_being_written_keeps_its_files(
    make_app: Callable[..., FastAPI], storage: SlowStorage, tracker: InProcessTracker
) -> None:
    """A client that leaves at the very end has uploaded a dataset."""

    async def test() -> None:
        app = make_app()
        is_writing, go_on = asyncio.Event(), asyncio.Event()

        async def write(*_: Any) -> None:
            is_writing.set()
            await go_on.wait()

        tracker.before["add_dataset"] = write
        task = asyncio.create_task(post(app, messages_of([BODY])))
        await is_writing.wait()
        await cancelled(task)
        go_on.set()
        await until(lambda: tracker.num_records == 1, "the record")
        (record,) = (await tracker.datasets()).records
        assert stored(storage) == {record.id, f"{record.id}/file", f"{record.id}/rows.parquet"}

    run(test())


def test_rows_are_checked_in_threads_of_their_own(make_app: Callable[..., FastAPI], storage: SlowStorage) -> None:
    async def test() -> None:
        app = make_app()
        storage.release.clear()
        tasks = [asyncio.create_task(post(app, messages_of([BODY]))) for _ in range(20)]
        await until(lambda: len(storage.reading_threads) == 2, "two checks")
        await until(lambda: sum(path.endswith("/file") for path in stored(storage)) == 20, "all files")
        assert all(name.startswith("upload-check") for name in storage.reading_threads)
        # Neither the event loop nor asyncio's own threads are taken.
        assert await status_of(app, "/health") == 200
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 3), 5) == 3
        storage.release.set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {201}

    run(test())


def test_body_that_goes_on_behind_the_file_is_still_read(make_app: Callable[..., FastAPI]) -> None:
    async def test() -> None:
        epilogue = b"--%s--" % BOUNDARY
        assert (await post(make_app(), messages_of([BODY, b"\r\n", epilogue]))).status == 201

    run(test())
