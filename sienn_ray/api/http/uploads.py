"""Slots, threads and deadlines of uploads: no more at once than there is memory for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from starlette.requests import ClientDisconnect

from sienn_ray.access.quotas import QuotaState, too_many_bytes
from sienn_ray.api.http.body_limits import declared_bytes
from sienn_ray.api.http.multipart import ENVELOPE_BYTES, FileLimit, ReceivedFile, boundary_of, receive_file, too_large
from sienn_ray.api.http.threads import entered, run_to_end
from sienn_ray.datasets import dataset_keys, reading_options
from sienn_ray.errors import CapacityError, InvalidInputError, SlowClientError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

T = TypeVar("T")

# What a form may have beside the file.
FIELDS = reading_options.FIELDS

logger = logging.getLogger(__name__)

# Checking rows is Python's own work, of which one process does one thing at a time, and the worst of rows take 150 MiB
# while they are checked.
_NUM_CHECKING_THREADS = 2
_NUM_WRITING_THREADS = 4
# These wait for the hub most of the time, and check rows as well.
_NUM_IMPORTING_THREADS = 2
# Comparing reads much; no check of an upload waits for it.
_NUM_COMPARING_THREADS = 1
_RETRY_AFTER_S = 30


class Uploads:
    """The slots, threads and deadlines of one process's uploads.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.max_concurrent_uploads)
        self._checking = ThreadPoolExecutor(_NUM_CHECKING_THREADS, "upload-check")
        self._writing = ThreadPoolExecutor(_NUM_WRITING_THREADS, "upload-write")
        self._importing = ThreadPoolExecutor(_NUM_IMPORTING_THREADS, "upload-import")
        self._comparing = ThreadPoolExecutor(_NUM_COMPARING_THREADS, "dataset-compare")

    @asynccontextmanager
    async def received(
        self, request: Request, storage: Storage, dataset_id: str, quotas: QuotaState | None = None
    ) -> AsyncIterator[ReceivedFile]:
        """Receive a request's file into storage, under `dataset_keys.file_key`; waits for a slot first.

        When the block ends with an error, whatever is in storage under this id is deleted.

        Args:
            request: The request.
            storage: Where the file goes.
            dataset_id: The id that it is kept under.
            quotas: What the owner may store; None where the file isn't to be kept.

        Raises:
            MediaTypeError: The body is no form.
            UploadTooLargeError: The file is larger than the server takes.
            QuotaExceededError: The file is larger than what the owner may store still.
            InvalidInputError: The body holds no file, or isn't whole.
            SlowClientError: The body stopped coming.
            CapacityError: No slot was free for a long time.
        """
        boundary = boundary_of(request.headers.get("content-type", ""))
        declared = declared_bytes(request.headers)
        limit = self.limit(quotas)
        if declared is not None and declared > limit.max_bytes + ENVELOPE_BYTES:
            raise limit.error()
        async with self.place():
            try:
                yield await self._receive(request, boundary, storage, dataset_id, limit)
            except ClientDisconnect as error:
                await self.forget(storage, dataset_id)
                raise InvalidInputError("the connection closed before the file was whole; send it again") from error
            except BaseException:
                await self.forget(storage, dataset_id)
                raise

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Have one of the slots while the block runs.

        Raises:
            CapacityError: None was free for a long time.
        """
        longest_s = self._settings.upload_queue_timeout_s
        try:
            async with asyncio.timeout(longest_s):
                await self._places.acquire()
        except TimeoutError:
            raise CapacityError(
                f"{self._settings.max_concurrent_uploads} uploads (SIENN_MAX_CONCURRENT_UPLOADS) have run for "
                f"{longest_s:g} s (SIENN_UPLOAD_QUEUE_TIMEOUT_S) without a place for this one; send it again later",
                retry_after_s=_RETRY_AFTER_S,
            ) from None
        try:
            yield
        finally:
            self._places.release()

    def limit(self, quotas: QuotaState | None) -> FileLimit:
        """Return what a file may have: by the setting, or by what is left to its owner where that is less."""
        max_bytes = self._settings.max_upload_bytes
        if quotas is None or quotas.room_bytes is None or quotas.room_bytes >= max_bytes:
            return FileLimit(max_bytes, lambda: too_large(max_bytes))
        stored, limit, room = quotas.use.stored_bytes, quotas.quotas.max_stored_bytes or 0, quotas.room_bytes
        return FileLimit(room, lambda: too_many_bytes(stored, limit, f"this file has more than {room}"))

    async def _receive(
        self, request: Request, boundary: bytes, storage: Storage, dataset_id: str, limit: FileLimit
    ) -> ReceivedFile:
        body = _not_idle(request.stream(), self._settings.upload_idle_timeout_s)
        async with entered(self._writing, storage.writing(dataset_keys.file_key(dataset_id))) as sink:
            return await receive_file(body, boundary, sink, executor=self._writing, limit=limit, fields=FIELDS)

    async def check(self, function: Callable[[threading.Event], T]) -> T:
        """Run a check of rows in a thread of those that are there for it.

        Args:
            function: What to run. It is given an event, which is set when the request is cancelled.
        """
        return await self._run(self._checking, function)

    async def take_elsewhere(self, function: Callable[[threading.Event], T]) -> T:
        """Run an import from elsewhere in a thread of those that are there for it; see `check`."""
        return await self._run(self._importing, function)

    async def compare(self, function: Callable[[threading.Event], T]) -> T:
        """Run a comparison of datasets in the thread that is there for it; see `check`."""
        return await self._run(self._comparing, function)

    async def _run(self, executor: ThreadPoolExecutor, function: Callable[[threading.Event], T]) -> T:
        abandoned = threading.Event()

        def abandon(job: Future[Any]) -> None:
            abandoned.set()
            job.cancel()  # if it still waits for a thread

        return await run_to_end(executor, function, abandoned, on_cancel=abandon)

    async def forget(self, storage: Storage, dataset_id: str) -> None:
        """Leave nothing behind, even if the request is cancelled meanwhile."""
        await run_to_end(self._writing, storage.delete, dataset_keys.folder_key(dataset_id))


def _uploads(connection: HTTPConnection) -> Uploads:
    return cast(Uploads, connection.app.state.uploads)


UploadsDep = Annotated[Uploads, Depends(_uploads)]


async def _not_idle(body: AsyncIterator[bytes], timeout_s: float) -> AsyncIterator[bytes]:
    """The chunks of a body, as long as they keep coming."""
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            logger.warning("an upload is given up: nothing came for %g s", timeout_s)
            raise SlowClientError(
                f"nothing came for {timeout_s:g} s (SIENN_UPLOAD_IDLE_TIMEOUT_S) in the middle of the file; "
                "send it again"
            ) from None
        yield chunk
