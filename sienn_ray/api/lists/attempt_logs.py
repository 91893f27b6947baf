"""The logs of a job's attempts, each of which is a Ray job of its own, as one stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sienn_ray.api.deps import Backends
from sienn_ray.api.http.streams import unless_silent
from sienn_ray.errors import ArtifactError, CapacityError, NotFoundError, first_line
from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.supervision.ray_jobs import submission_id_of
from sienn_ray.storage import Storage
from sienn_ray.storage_keys import attempt_log_key

logger = logging.getLogger(__name__)

POLL_S = 1.0
# That one may ask for.
MAX_TAIL_LINES = 100_000


async def log_of(job: JobRecord, attempt: int | None, backends: Backends, *, tail: int) -> AsyncGenerator[bytes]:
    """Stream the log of one attempt up to now; nothing for a job that hasn't had one.

    Args:
        job: The job.
        attempt: Which attempt; the last one by default.
        backends: See `Backends`.
        tail: Lines at the most.

    Raises:
        NotFoundError: There was no such attempt, or its log is gone.
    """
    if attempt is None and job.attempt == 0:
        return
    async with aclosing(_attempt_log(job, attempt or job.attempt, backends, tail=tail, follow=False)) as chunks:
        async for chunk in chunks:
            yield chunk


async def followed_log_of(
    job: JobRecord, attempt: int | None, backends: Backends, *, tail: int, poll_s: float = POLL_S
) -> AsyncGenerator[bytes]:
    """Stream the log of the last attempt and those after it, until the job ends or is paused, or is silent for long.

    The first item comes, maybe empty, once it is known that there is a log or that there will be one.

    Args:
        job: The job.
        attempt: This attempt alone.
        backends: See `Backends`.
        tail: Lines at the most of what is there.
        poll_s: Seconds between two looks at a job that waits for its next attempt.

    Raises:
        NotFoundError: There was no such attempt, or the job has ended, or is paused, and its log is gone.
    """
    longest_s = backends.settings.stream_idle_timeout_s
    log = _followed(job, attempt, backends, tail=tail, poll_s=poll_s)
    try:
        async with aclosing(unless_silent(log, longest_s)) as chunks:
            async for chunk in chunks:
                yield chunk
    except TimeoutError:
        yield f"\n(nothing new for {longest_s:g} s, SIENN_STREAM_IDLE_TIMEOUT_S; follow the log again)\n".encode()


def whole_log_of(job: JobRecord, attempt: int, backends: Backends, *, follow: bool) -> AsyncGenerator[bytes]:
    """Stream the log of one attempt from its first line on.

    Args:
        job: The job.
        attempt: Which attempt.
        backends: See `Backends`.
        follow: Go on with what comes until the attempt has ended.

    Raises:
        NotFoundError: There was no such attempt, or its log is gone.
        CapacityError: Ray didn't answer.
    """
    return _attempt_log(job, attempt, backends, tail=None, follow=follow)


async def _followed(
    job: JobRecord, attempt: int | None, backends: Backends, *, tail: int, poll_s: float
) -> AsyncGenerator[bytes]:
    if attempt is not None:
        async with aclosing(_attempt_log(job, attempt, backends, tail=tail, follow=True)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    num_shown, is_begun = 0, False
    while True:
        if job.attempt > num_shown:
            try:
                async with aclosing(_attempt_log(job, job.attempt, backends, tail=tail, follow=True)) as chunks:
                    async for chunk in chunks:
                        is_begun = True
                        yield chunk
                num_shown = job.attempt
            except NotFoundError:
                # One that hasn't ended is yet to be submitted, or was lost with its cluster, which is noticed soon.
                if job.status.is_at_rest and not is_begun:
                    raise
        if job.status.is_at_rest:
            return
        if not is_begun:
            is_begun = True
            yield b""
        await asyncio.sleep(poll_s)
        try:
            job = await backends.tracker.job(job.id)
        except CapacityError:
            logger.info("job %s: the tracker is away, its log goes on later", job.id)
        except NotFoundError:  # deleted, so it had ended
            return


async def _attempt_log(
    job: JobRecord, attempt: int, backends: Backends, *, tail: int | None, follow: bool
) -> AsyncGenerator[bytes]:
    """The log that Ray has of an attempt, or the one that was kept of it."""
    has_begun = False
    try:
        async with aclosing(_stream(job, attempt, backends, tail=tail, follow=follow)) as chunks:
            async for chunk in chunks:
                has_begun = has_begun or bool(chunk)
                yield chunk
    except (NotFoundError, CapacityError):
        has_ended = job.status.is_at_rest or attempt < job.attempt
        if has_begun or not has_ended:
            raise
        kept = await asyncio.to_thread(_kept_log, backends.storage, attempt_log_key(job.id, attempt), tail)
        if kept is None:
            raise
        yield kept


def _kept_log(storage: Storage, key: str, tail: int | None) -> bytes | None:
    """The last lines of a log in storage, which is bounded in size; None where there is none."""
    try:
        content = storage.read_bytes(key)
    except ArtifactError:
        return None
    except Exception as error:  # stores raise what they like; what Ray said stands then
        logger.warning("%s can't be read: %s", key, first_line(error))
        return None
    if tail is None:
        return content
    lines = content.splitlines(keepends=True)
    return b"".join(lines[len(lines) - tail :] if tail < len(lines) else lines)


def _stream(
    job: JobRecord, attempt: int, backends: Backends, *, tail: int | None, follow: bool
) -> AsyncGenerator[bytes]:
    if attempt > job.attempt:
        raise NotFoundError(f"Job {job.id} has had {job.attempt} attempts; leave `attempt` out for the last one's log")
    submission_id = submission_id_of(job.id, attempt)
    if attempt == job.attempt and job.submission_id is not None:
        submission_id = job.submission_id  # a fine-tune that was started by hand has a Ray job of any name
    return backends.job_logs.stream(submission_id, tail=tail, follow=follow)
