"""Server-sent events (WHATWG HTML, section 9.2), whose first one decides the status of the response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sienn_ray.api.access.open_answers import while_allowed
from sienn_ray.api.deps import Backends
from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.errors import fault_of
from sienn_ray.api.http.streams import StartedStream, unless_gone, unless_silent
from sienn_ray.errors import CapacityError

MEDIA_TYPE = "text/event-stream"
# Proxies are not to keep events back until there is a lot of them.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(data: str, name: str | None = None) -> bytes:
    """One event; data has no line breaks, as JSON that isn't indented."""
    return f"event: {name}\ndata: {data}\n\n".encode() if name else f"data: {data}\n\n".encode()


def documented_stream(description: str, example: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of a response that is JSON, or a stream of events if the request asks for it.

    Args:
        description: What comes, in both cases.
        example: Some events.
    """
    one_event = {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        "required": ["data"],
    }
    return {200: {"description": description, "content": {MEDIA_TYPE: {"schema": one_event, "example": example}}}}


class EventStream(StreamingResponse):
    """A response of events. When the client disconnects, the source of events is closed."""

    media_type = MEDIA_TYPE

    def __init__(self, events: StartedStream[bytes]) -> None:
        super().__init__(events, headers=_HEADERS)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def event_stream(
    request: Request, events: AsyncGenerator[bytes], error_event: Callable[[Fault], bytes]
) -> EventStream:
    """A response once the first event is there; an error before it is raised, a later one becomes an event.

    It ends when its caller isn't let in any more; see `while_allowed`.

    Args:
        request: The client's request.
        events: What is sent.
        error_event: The last event where something fails.
    """
    source = _with_error(request, events, error_event)
    return EventStream(StartedStream(await unless_gone(request, anext(source)), source))


async def _with_error(
    request: Request, events: AsyncGenerator[bytes], error_event: Callable[[Fault], bytes]
) -> AsyncGenerator[bytes]:
    is_begun = False
    backends: Backends = request.app.state.backends
    longest_s = backends.settings.stream_idle_timeout_s
    try:
        async with aclosing(unless_silent(while_allowed(request, events), longest_s)) as news:
            async for each in news:
                yield each
                is_begun = True
    except TimeoutError:
        silence = CapacityError(f"nothing has come for {longest_s:g} s (SIENN_STREAM_IDLE_TIMEOUT_S); ask again")
        if not is_begun:
            raise silence from None
        yield error_event(fault_of(request.scope, silence))
    except Exception as error:
        if not is_begun:
            raise
        yield error_event(fault_of(request.scope, error))
