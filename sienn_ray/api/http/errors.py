"""The one place where errors become HTTP, in one of the two shapes that `error_shapes.py` has."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match, Mount
from starlette.types import Receive, Scope, Send

from sienn_ray.api.http.alternatives import settled
from sienn_ray.api.http.error_shapes import Fault, is_oauth, is_openai
from sienn_ray.api.http.known_names import known_names
from sienn_ray.api.http.other_paths import way_out_of
from sienn_ray.api.http.request_id import request_id_of
from sienn_ray.api.http.statuses import meaning_of
from sienn_ray.api.http.validation import field_of, sentences
from sienn_ray.api.schemas.common import ErrorResponse
from sienn_ray.errors import (
    DEFAULT_RETRY_AFTER_S,
    ArtifactError,
    CapacityError,
    ConflictError,
    ContextLengthError,
    EngineError,
    ForbiddenError,
    InvalidInputError,
    MediaTypeError,
    NotFoundError,
    RefusedPromptError,
    SiennError,
    SlowClientError,
    StorageFullError,
    TokenRequestError,
    TooManyRequestsError,
    UnauthorizedError,
    UploadTooLargeError,
)
from sienn_ray.jobs.ids import shown

logger = logging.getLogger(__name__)

# The first class that fits counts, so a subclass stands before its base.
_STATUS_OF: tuple[tuple[type[SiennError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (UploadTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (MediaTypeError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (SlowClientError, HTTPStatus.REQUEST_TIMEOUT),
    (InvalidInputError, HTTPStatus.BAD_REQUEST),
    (ConflictError, HTTPStatus.CONFLICT),
    (TooManyRequestsError, HTTPStatus.TOO_MANY_REQUESTS),
    (CapacityError, HTTPStatus.SERVICE_UNAVAILABLE),
    (UnauthorizedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (StorageFullError, HTTPStatus.INSUFFICIENT_STORAGE),
    (ArtifactError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (EngineError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
# What FastAPI says of whatever goes wrong while it reads a JSON body.
_UNPARSED = "There was an error parsing the body"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_RETRIED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of error responses."""
    return {int(status): {"model": ErrorResponse, "description": meaning_of(status)} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Give every error that is raised within an application the one shape; `internal_error` has those of middleware."""
    app.add_exception_handler(SiennError, _over_http(_on_own_error))
    for kind in (RequestValidationError, WebSocketRequestValidationError):
        app.add_exception_handler(kind, _over_http(_on_validation_error))
    app.add_exception_handler(HTTPException, _over_http(_on_http_error))


def error_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None, *, scope: Scope | None = None
) -> JSONResponse:
    """An error in the shape of the part of the API that a request was to."""
    return _response(Fault(status, detail), scope, headers)


async def refuse(status: HTTPStatus, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request, or a WebSocket before it is accepted, from within a middleware."""
    await refuse_with(Fault(status, detail), {}, scope, receive, send)


async def refuse_with(fault: Fault, headers: Mapping[str, str], scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request as `refuse` does, with headers that an HTTP response has beside its usual ones."""
    if scope["type"] == "websocket":
        raise HTTPException(fault.status, fault.detail)  # `WebSocketErrors` around it knows how to say so
    await _response(fault, scope, headers)(scope, receive, send)


def _response(fault: Fault, scope: Scope | None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A status that asks to come back later always says when."""
    if is_openai(scope) and fault.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        fault = replace(fault, status=HTTPStatus.BAD_REQUEST)  # what the OpenAI API says of any invalid field
    body = fault.as_json(is_openai=is_openai(scope), is_oauth=is_oauth(scope))
    response = JSONResponse(body, int(fault.status), headers)
    if is_oauth(scope):
        response.headers["Cache-Control"] = "no-store"
        if fault.status == HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Basic realm="sienn_ray"'
    if fault.status in _RETRIED:
        retry_after_s = DEFAULT_RETRY_AFTER_S if fault.retry_after_s is None else fault.retry_after_s
        response.headers.setdefault("Retry-After", str(retry_after_s))
    return response


def internal_error(scope: Scope, error: Exception) -> JSONResponse:
    """Log an error that nobody foresaw under the request's id; the response shows the id and nothing else."""
    return _response(_internal_fault(scope, error), scope)


def _internal_fault(scope: Scope, error: Exception) -> Fault:
    request_id = request_id_of(scope)
    logger.error("request %s: %s failed", request_id, _target(scope), exc_info=error)
    detail = f"Internal error; the server's log has the details under request id {request_id}"
    return Fault(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def fault_of(scope: Scope, error: Exception) -> Fault:
    """Return the status and message of an error; one that should not happen is logged under the request's id."""
    if not isinstance(error, SiennError):
        return _internal_fault(scope, error)
    status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, CapacityError):
        return Fault(status, error.message, retry_after_s=error.retry_after_s)
    if isinstance(error, TokenRequestError):
        return Fault(status, error.message, code=error.code)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _openai_fault(status, error) if is_openai(scope) else Fault(status, error.message)
    request_id = request_id_of(scope)
    logger.error("request %s: %s", request_id, _target(scope), exc_info=error)
    return Fault(status, f"{error.message} (request id {request_id})")


def _openai_fault(status: int, error: SiennError) -> Fault:
    """The fault with the codes that clients of the OpenAI API look at, and with its names of fields."""
    code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
    if status == HTTPStatus.NOT_FOUND:
        code = "model_not_found"  # all that can be missing there
    field = error.field if isinstance(error, RefusedPromptError) else None
    return Fault(status, error.message.replace("max_new_tokens", "max_tokens"), field=field, code=code)


def _target(scope: Scope) -> str:
    return f"{scope.get('method', 'WebSocket')} {shown(scope['path'])}"


def _over_http(
    respond: Callable[[Request, Exception], Awaitable[JSONResponse]],
) -> Callable[[HTTPConnection, Exception], Awaitable[JSONResponse]]:
    async def handle(connection: HTTPConnection, error: Exception) -> JSONResponse:
        if not isinstance(connection, Request):
            raise error  # `WebSocketErrors` knows if the connection has been accepted
        return await respond(connection, error)

    return handle


async def _on_own_error(request: Request, error: Exception) -> JSONResponse:
    return _response(fault_of(request.scope, error), request.scope)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # nosec B101 # for the type checker
    faults = error.errors()
    if any(fault["loc"][:1] == ("body",) for fault in faults) and isinstance(error.body, bytes):
        # FastAPI leaves a body alone that isn't declared as JSON.
        sent = shown(request.headers.get("content-type", ""))
        detail = f"Content-Type '{sent}' is not application/json; send the header 'Content-Type: application/json'"
        return error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, scope=request.scope)
    faults = settled(faults, error.body)
    known = known_names(request)
    fault = Fault(HTTPStatus.UNPROCESSABLE_ENTITY, sentences(faults, known), field=field_of(faults, known))
    return _response(fault, request.scope)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # nosec B101 # for the type checker
    headers = dict(error.headers or {})
    detail = str(error.detail) or HTTPStatus(error.status_code).phrase
    path = shown(request.url.path)
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"{request.method} {path} is not part of this API; {way_out_of(request.url.path)}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed_methods(request) or headers.get("Allow", "")
        detail = f"{request.method} is not allowed on {path}; /docs lists what is"
    elif error.detail == _UNPARSED and (fault := _fault_of_body(error.__cause__)):
        return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, fault, scope=request.scope)
    return error_response(error.status_code, detail, headers, scope=request.scope)


def _allowed_methods(request: Request) -> str:
    """All methods of a path; Starlette names only those of the first route that has the path."""
    app: FastAPI = request.app
    routes = [route for route in app.routes if not isinstance(route, Mount)]
    return ", ".join(
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )


def _fault_of_body(cause: BaseException | None) -> str | None:
    """Why a JSON body that isn't malformed couldn't be read."""
    if isinstance(cause, RecursionError):
        return "body: nested too deeply; no field here takes more than a few levels"
    if isinstance(cause, UnicodeDecodeError):
        return f"body: not UTF-8 at byte {cause.start}"
    if isinstance(cause, ValueError):  # what `int` says of thousands of digits
        return "body: a number has too many digits"
    return None
