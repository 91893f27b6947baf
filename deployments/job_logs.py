"""The logs of training programs, from wherever in the cluster Ray keeps them."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TypeVar

from sienn_ray.api.monitoring.check_runner import in_own_thread
from sienn_ray.errors import CapacityError, NotFoundError
from sienn_ray.jobs.supervision.ray_logs import ALL_LINES, LogPlace, RayLogApi, RayLogs

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Calls to Ray at the same time, of those within their deadline.
_MAX_CALLS = 8
_MAX_RECENT_BYTES = 4 * 1024**2
# Ray sends a log in batches without a pause, and once it is at the file's end, it looks there every one or two seconds.
_END_OF_FILE_PAUSE_S = 0.7
# An empty log says nothing at all.
_LONGEST_START_S = 5.0


class RayJobLogs:
    """`JobLogs` over a Ray cluster.

    Args:
        ray_logs: Ray's side of it.
        deadline_s: Seconds within which Ray has to answer a call.
        pause_s: Seconds after which a log that says nothing is taken to be read to its present end.
        pauses_until_look: So many of these without a word, and the job is looked at, since a dead connection is as
            silent.
    """

    def __init__(
        self,
        ray_logs: RayLogs | None = None,
        *,
        deadline_s: float = 15.0,
        pause_s: float = 1.5,
        pauses_until_look: int = 20,
    ) -> None:
        self._ray_logs = ray_logs or RayLogApi()
        self._deadline_s = deadline_s
        self._pause_s = pause_s
        self._pauses_until_look = pauses_until_look
        self._calls = asyncio.Semaphore(_MAX_CALLS)

    async def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> AsyncGenerator[bytes]:
        """See `JobLogs.stream`."""
        place = await self._look(submission_id)
        if follow and not place.has_ended:
            yield b""
            chunks = self._followed(submission_id, tail)
        else:
            chunks = self._read(place, submission_id, tail)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        except ConnectionError as error:
            raise CapacityError(f"Ray didn't send the log ({error}); try again in a moment") from error

    async def _look(self, submission_id: str) -> LogPlace:
        try:
            return await self._in_thread(lambda: self._ray_logs.look(submission_id))
        except LookupError as error:
            raise _gone(submission_id) from error
        except ConnectionError as error:
            raise CapacityError(f"Ray didn't say where the log is ({error}); try again in a moment") from error

    async def _read(self, place: LogPlace, submission_id: str, tail: int | None) -> AsyncGenerator[bytes]:
        """The last lines of what is there."""
        if place.node_id is None:
            if place.has_ended:
                raise NotFoundError(f"Ray job {submission_id} ended before its program began, so it has no log")
            return
        # Ray reads no less than one line.
        num_lines = ALL_LINES if tail is None else max(tail, 1)
        lines = self._ray_logs.read(place.node_id, submission_id, num_lines)
        is_empty = True
        try:
            # Each step is one block; the next one is read when this one has been taken.
            while chunk := await self._in_thread(lambda: next(lines, b"")):
                is_empty = False
                if tail == 0:
                    return
                yield chunk
        except LookupError as error:
            if place.has_ended:
                raise _gone(submission_id) from error
        # Ray writes lines of its own, so no log is empty; now and then it says nothing instead of that a file is gone.
        if is_empty and place.has_ended:
            raise _gone(submission_id)

    async def _followed(self, submission_id: str, tail: int | None) -> AsyncGenerator[bytes]:
        """The last lines of what is there, or all of them, then what comes, until the Ray job has ended."""
        beginning = _Beginning(tail)
        num_pauses, has_ended = 0, False
        async with aclosing(_with_pauses(self._ray_logs.follow(submission_id), self._pause_s)) as chunks:
            async for chunk in chunks:
                text = chunk if beginning.is_over else beginning.add(chunk, time.monotonic())
                if text:
                    yield text
                num_pauses = num_pauses + 1 if chunk is None else 0
                if num_pauses == self._pauses_until_look:
                    if has_ended:  # the last time, and nothing has come since
                        break
                    num_pauses, has_ended = 0, await self._has_ended(submission_id)
        if rest := beginning.take():
            yield rest

    async def _has_ended(self, submission_id: str) -> bool:
        try:
            return (await self._look(submission_id)).has_ended
        except NotFoundError:
            return True

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Run what blocks in a thread of its own, which is given up at the deadline; it makes room for others then.

        Raises:
            ConnectionError: It took too long.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._calls:
                return await in_own_thread(call)
        except TimeoutError as error:
            raise ConnectionError(f"no answer within {self._deadline_s:.0f} s") from error


class _Beginning:
    """Collects what a log that is followed had when one came to it, in bounded memory.

    Args:
        tail: Lines that are kept, the last ones; None keeps none back.
    """

    def __init__(self, tail: int | None) -> None:
        self.is_over = tail is None
        self._lines: deque[bytes] = deque(maxlen=tail)
        self._num_bytes = 0
        self._started_s: float | None = None
        self._last_s: float | None = None

    def add(self, chunk: bytes | None, now_s: float) -> bytes:
        """Take a chunk, or a pause; gives what has come together once it is all that there was."""
        self._started_s = now_s if self._started_s is None else self._started_s
        if chunk is not None:
            # After the end of the file chunks come with pauses between them. The first one also takes its time.
            is_at_end = self._last_s is not None and now_s - self._last_s > _END_OF_FILE_PAUSE_S
            self._last_s = now_s
            self._keep(chunk)
        else:
            is_at_end = self._last_s is not None or now_s - self._started_s > _LONGEST_START_S
        return self.take() if is_at_end else b""

    def _keep(self, chunk: bytes) -> None:
        for line in io.BytesIO(chunk):
            if len(self._lines) == self._lines.maxlen and self._lines:
                self._num_bytes -= len(self._lines.popleft())
            if self._lines.maxlen:
                self._lines.append(line)
                self._num_bytes += len(line)
        while self._num_bytes > _MAX_RECENT_BYTES and len(self._lines) > 1:
            self._num_bytes -= len(self._lines.popleft())

    def take(self) -> bytes:
        """What has come together so far; nothing more is kept."""
        self.is_over = True
        text = b"".join(self._lines)
        self._lines.clear()
        return text


async def _with_pauses(chunks: AsyncGenerator[bytes], pause_s: float) -> AsyncGenerator[bytes | None]:
    """The chunks, and None whenever none has come for a while."""

    async def following() -> bytes | None:
        return await anext(chunks, None)

    async with aclosing(chunks):
        coming = asyncio.create_task(following())
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=pause_s)
                if not done:
                    yield None
                    continue
                chunk = coming.result()
                if chunk is None:
                    return
                yield chunk
                coming = asyncio.create_task(following())
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await coming


def _gone(submission_id: str) -> NotFoundError:
    return NotFoundError(
        f"Ray has no log of {submission_id}: logs go when the cluster that ran the job, or the node, is gone"
    )
