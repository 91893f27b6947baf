"""Live updates of jobs and of the service's numbers, over server-sent events and WebSockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, WebSocket
from fastapi.responses import StreamingResponse

from sienn_ray.access.principals import Principal, Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.event_streams import EventStream, documented_stream, event, event_stream
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.lists.attempt_logs import MAX_TAIL_LINES
from sienn_ray.api.live.hub import LiveHubDep
from sienn_ray.api.live.shared_numbers import SharedNumbersDep
from sienn_ray.api.live.sockets import send_updates
from sienn_ray.api.live.updates import Updates, Wish, all_updates, job_updates
from sienn_ray.api.monitoring.monitoring import MonitoringDep
from sienn_ray.api.monitoring.numbers import numbers_now
from sienn_ray.api.schemas.common import ErrorResponse
from sienn_ray.api.schemas.ids import JobIdPath

router = APIRouter(prefix="/api", tags=["Live Updates"], dependencies=[takes_place(Kind.LISTENER)])

# So that a browser comes back after a second when its connection breaks.
_RETRY = b"retry: 1000\n"
_SEES_JOBS = [needs(Scope.READ, Scope.TRAIN)]
_SEES_NUMBERS = [needs(Scope.READ)]
_ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_JOB_EVENTS = """\
id: 17.1762943404000000
event: status
data: {"job_id": "a1b2c3d4-...", "status": "running", "progress": 45, ...}

id: 18.1762943404000000
event: event
data: {"job_id": "a1b2c3d4-...", "seq": 18, "kind": "epoch", "message": "Epoch 2/3 ...", ...}

id: 18.1762943409000000
event: point
data: {"job_id": "a1b2c3d4-...", "step": 120, "epoch": 2, "loss": 0.523, ...}

id: 18.1762943409000000.1.42
event: log
data: {"job_id": "a1b2c3d4-...", "attempt": 1, "first_line": 42, "lines": ["12:00:01 INFO epoch 1/3: loss 0.523"]}

event: end
data: {"detail": "the job is completed"}
"""
_ALL_EVENTS = """\
id: 18.1762943404000000
event: event
data: {"job_id": "a1b2c3d4-...", "seq": 18, "kind": "completed", "message": "...", ...}
"""
_METRIC_EVENTS = """\
event: metrics
data: {"timestamp": "2025-11-12T10:30:00.000Z", "system": {...}, "application": {...}}
"""

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=64,
        description="The id of the last update that one has; without it, updates begin with what comes now.",
        examples=["18.1762943409000000"],
    ),
]
# A WebSocket or a first EventSource of a browser can't have headers.
LastId = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        max_length=64,
        description="As the header `Last-Event-ID`, which goes before it: browsers send that when they come back.",
        examples=["18.1762943409000000"],
    ),
]
Logs = Annotated[bool, Query(description="Lines of the job's log too.", examples=[True])]
Tail = Annotated[
    int,
    Query(
        ge=0,
        le=MAX_TAIL_LINES,
        description="So many lines that the log has already come first, for one that has no id yet.",
        examples=[100],
    ),
]
Limit = Annotated[
    int | None,
    Query(ge=1, le=1_000_000, description="Updates after which it ends, heartbeats too.", examples=[10]),
]


@router.get(
    "/events/jobs/{job_id}",
    summary="Follow a training job",
    response_class=StreamingResponse,
    responses={
        **documented_stream("Updates until the job is at rest.", _JOB_EVENTS),
        **_ERRORS,
        **documented(HTTPStatus.NOT_FOUND),
    },
    dependencies=_SEES_JOBS,
)
async def follow_job(
    job_id: JobIdPath,
    backends: BackendsDep,
    hub: LiveHubDep,
    request: Request,
    last_event_id: LastEventId = None,
    last_id: LastId = None,
    logs: Logs = True,
    tail: Tail = 0,
    limit: Limit = None,
) -> EventStream:
    """The job's status, its events, the points of its curves and the lines of its log, until it is at rest.

    A `status` comes first, and with each change; `event`, `point` and the lines of `log` come once each, also over
    reconnects with the id of the last one. The id `0.0.0.0` begins with the first of each. It ends with `end`, or with
    `lagging` for a client that doesn't read.
    """
    return await _stream(request, job_updates(backends, hub, job_id, Wish(last_event_id or last_id, logs, tail)), limit)


@router.get(
    "/events",
    summary="Follow the events of all jobs",
    response_class=StreamingResponse,
    responses={**documented_stream("Events as they come, without an end.", _ALL_EVENTS), **_ERRORS},
    dependencies=_SEES_JOBS,
)
async def follow_jobs(
    hub: LiveHubDep,
    principal: PrincipalDep,
    request: Request,
    last_event_id: LastEventId = None,
    last_id: LastId = None,
    limit: Limit = None,
) -> EventStream:
    """Starts, epochs and ends of the caller's jobs; an admin hears of everybody's."""
    return await _stream(request, all_updates(hub, _owner(principal), last_event_id or last_id), limit)


@router.get(
    "/events/metrics",
    summary="Follow the numbers of machine and service",
    response_class=StreamingResponse,
    responses={**documented_stream("The numbers every five seconds, without an end.", _METRIC_EVENTS), **_ERRORS},
    dependencies=_SEES_NUMBERS,
)
async def follow_metrics(
    backends: BackendsDep,
    monitoring: MonitoringDep,
    shared: SharedNumbersDep,
    principal: PrincipalDep,
    request: Request,
    limit: Limit = None,
) -> EventStream:
    """Numbers as `GET /api/metrics` has them, every five seconds."""
    updates = shared.updates(_owner(principal), lambda: numbers_now(backends, monitoring))
    return await _stream(request, updates, limit)


@router.websocket("/ws/jobs/{job_id}", dependencies=_SEES_JOBS)
async def job_socket(
    websocket: WebSocket,
    job_id: JobIdPath,
    backends: BackendsDep,
    hub: LiveHubDep,
    last_id: LastId = None,
    logs: Logs = True,
    tail: Tail = 0,
) -> None:
    """See `follow_job`."""
    await send_updates(websocket, job_updates(backends, hub, job_id, Wish(last_id, logs, tail)))


@router.websocket("/ws/events", dependencies=_SEES_JOBS)
async def jobs_socket(
    websocket: WebSocket,
    hub: LiveHubDep,
    principal: PrincipalDep,
    last_id: LastId = None,
) -> None:
    """See `follow_jobs`."""
    await send_updates(websocket, all_updates(hub, _owner(principal), last_id))


@router.websocket("/ws/metrics", dependencies=_SEES_NUMBERS)
async def metrics_socket(
    websocket: WebSocket,
    backends: BackendsDep,
    monitoring: MonitoringDep,
    shared: SharedNumbersDep,
    principal: PrincipalDep,
) -> None:
    """See `follow_metrics`."""
    updates = shared.updates(_owner(principal), lambda: numbers_now(backends, monitoring))
    await send_updates(websocket, updates)


def _owner(principal: Principal) -> str | None:
    return None if principal.is_admin else principal.owner


async def _stream(request: Request, updates: Updates, limit: int | None) -> EventStream:
    return await event_stream(request, _limited(updates, limit), _error_event)


async def _limited(updates: Updates, limit: int | None) -> AsyncGenerator[bytes]:
    number = 0
    async with aclosing(updates):
        async for some in updates:
            # As one piece: each costs Serve's replica and proxy the same, however small it is.
            taken = some if limit is None else some[: limit - number]
            yield (b"" if number else _RETRY) + b"".join(update.as_event() for update in taken)
            number += len(taken)
            if number == limit:
                return


def _error_event(fault: Fault) -> bytes:
    return event(ErrorResponse(**fault.as_json()).model_dump_json(), "error")
