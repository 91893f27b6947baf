"""A local file as a response, with Range requests (RFC 9110, section 14)."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from sienn_ray.api.http.attachments import CHUNK_BYTES
from sienn_ray.api.http.errors import error_response
from sienn_ray.jobs.ids import shown


class StoredFileResponse(FileResponse):
    """Starlette's, in larger pieces, since each is a message between processes; with the errors of this API."""

    chunk_size = CHUNK_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        refusals: list[Message] = []

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                refusals.append(message)
            elif not refusals:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if refusals:
            await _refusal(scope, refusals[0], receive, send)


async def _refusal(scope: Scope, refused: Message, receive: Receive, send: Send) -> None:
    asked = shown(Headers(scope=scope).get("range", ""))
    whole = Headers(raw=refused["headers"]).get("content-range")
    if whole is None:
        detail = f"the header 'Range: {asked}' can't be read; it is of the form 'bytes=FIRST-LAST'"
        response = error_response(refused["status"], detail, scope=scope)
    else:
        size = whole.rpartition("/")[2]
        detail = f"the header 'Range: {asked}' asks for what the file doesn't have; it has {size} bytes"
        response = error_response(refused["status"], detail, {"Content-Range": f"bytes */{size}"}, scope=scope)
    await response(scope, receive, send)
