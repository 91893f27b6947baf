"""Live updates over a WebSocket: a message for each, and a close frame that says how it ended."""

from __future__ import annotations

from contextlib import aclosing

import anyio
from starlette import status
from starlette.websockets import WebSocket, WebSocketDisconnect

from sienn_ray.api.access.credentials import SUBPROTOCOL
from sienn_ray.api.access.open_answers import while_allowed
from sienn_ray.api.live.updates import Update, Updates

# A client has nothing to say. What it sends is read, or it would wait in Serve's queues, which have no bounds.
_MAX_MESSAGES = 100


async def send_updates(websocket: WebSocket, updates: Updates) -> None:
    """Send updates until they end, or the client has gone.

    The connection is accepted once the first one is there: an error before that refuses it. It ends when its caller
    isn't let in any more; see `while_allowed`.

    Args:
        websocket: The connection.
        updates: What is sent.
    """
    failure: Exception | None = None
    async with aclosing(while_allowed(websocket, updates)) as allowed:
        first = await anext(allowed)
        is_offered = SUBPROTOCOL in websocket.scope.get("subprotocols", [])
        await websocket.accept(SUBPROTOCOL if is_offered else None)
        async with anyio.create_task_group() as group:
            # Serve's proxy doesn't cancel a handler whose client has gone; who reads is told.
            group.start_soon(_read_on, websocket, group.cancel_scope)
            try:
                await _send(websocket, first, allowed)
            except WebSocketDisconnect:
                pass
            except Exception as error:  # raised below, where it isn't one of a group
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _send(websocket: WebSocket, first: list[Update], updates: Updates) -> None:
    some = first
    while some:
        for update in some:
            await websocket.send_text(update.as_message())
        last, some = some[-1], await anext(updates, [])
    is_lagging = last.name == "lagging"
    await websocket.close(status.WS_1013_TRY_AGAIN_LATER if is_lagging else status.WS_1000_NORMAL_CLOSURE)


async def _read_on(websocket: WebSocket, sending: anyio.CancelScope) -> None:
    for _ in range(_MAX_MESSAGES):
        if (await websocket.receive())["type"] == "websocket.disconnect":
            break
    else:
        await websocket.close(status.WS_1008_POLICY_VIOLATION, "this connection only tells; send nothing")
    sending.cancel()
