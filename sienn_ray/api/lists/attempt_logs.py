"""The logs of a job's attempts, each of which is a Ray job of its own, as one stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sienn_ray.api.deps import Backends
from sienn_ray.errors import CapacityError, NotFoundError
from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.supervision.ray_jobs import submission_id_of

logger = logging.getLogger(__name__)

POLL_S = 1.0


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
    async with aclosing(_stream(job, attempt or job.attempt, backends, tail=tail, follow=False)) as chunks:
        async for chunk in chunks:
            yield chunk


async def followed_log_of(
    job: JobRecord, attempt: int | None, backends: Backends, *, tail: int, poll_s: float = POLL_S
) -> AsyncGenerator[bytes]:
    """Stream the log of the last attempt and those after it, until the job ends or is paused.

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
    if attempt is not None:
        async with aclosing(_stream(job, attempt, backends, tail=tail, follow=True)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    num_shown, is_begun = 0, False
    while True:
        if job.attempt > num_shown:
            try:
                async with aclosing(_stream(job, job.attempt, backends, tail=tail, follow=True)) as chunks:
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


def _stream(job: JobRecord, attempt: int, backends: Backends, *, tail: int, follow: bool) -> AsyncGenerator[bytes]:
    if attempt > job.attempt:
        raise NotFoundError(f"Job {job.id} has had {job.attempt} attempts; leave `attempt` out for the last one's log")
    submission_id = submission_id_of(job.id, attempt)
    if attempt == job.attempt and job.submission_id is not None:
        submission_id = job.submission_id  # a fine-tune that was started by hand has a Ray job of any name
    return backends.job_logs.stream(submission_id, tail=tail, follow=follow)
