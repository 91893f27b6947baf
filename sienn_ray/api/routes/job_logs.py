"""The log of a job's training program."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.open_answers import while_allowed
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, take_place
from sienn_ray.api.http.streams import StartedStream
from sienn_ray.api.lists.attempt_logs import MAX_TAIL_LINES, followed_log_of, log_of
from sienn_ray.api.schemas.ids import JobIdPath
from sienn_ray.errors import UnauthorizedError

router = APIRouter(prefix="/api", tags=["Training Jobs"], dependencies=[needs(Scope.READ, Scope.TRAIN)])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The log, as it was printed.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "12:00:01 INFO epoch 1/3: loss 0.523\n"}},
    }
}


@router.get(
    "/jobs/{job_id}/logs",
    summary="Get a training job's log",
    response_class=StreamingResponse,
    responses={
        **_TEXT,
        **documented(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
)
async def job_logs(
    job_id: JobIdPath,
    backends: BackendsDep,
    request: Request,
    tail: Annotated[
        int, Query(ge=0, le=MAX_TAIL_LINES, description="Lines at the most, the last ones.", examples=[1000])
    ] = 1000,
    follow: Annotated[
        bool,
        Query(
            description="Go on with what comes, through further attempts, until the job has ended or is paused.",
            examples=[True],
        ),
    ] = False,
    attempt: Annotated[
        int | None,
        Query(ge=1, le=1_000_000, description="Log of this attempt alone; of the last one without it.", examples=[1]),
    ] = None,
) -> StreamingResponse:
    """The log of the last attempt, as plain text.

    Ray has it while the cluster lives; once an attempt has ended, its log is kept in storage until the job is deleted.
    """
    if follow:
        take_place(request, Kind.FOLLOWER)
    job = await backends.tracker.job(job_id)
    chunks = (followed_log_of if follow else log_of)(job, attempt, backends, tail=tail)
    if follow:
        chunks = _while_allowed(request, chunks)
    # Nothing is sent before the first item: as long as nothing is, a status can still say that there is no log.
    first = await anext(chunks, b"")
    return StreamingResponse(StartedStream(first, chunks), media_type="text/plain")


async def _while_allowed(request: Request, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The log, with a last line that says why it goes on without its caller."""
    try:
        async with aclosing(while_allowed(request, chunks)) as allowed:
            async for chunk in allowed:
                yield chunk
    except UnauthorizedError as error:
        yield f"\n({error.message})\n".encode()
