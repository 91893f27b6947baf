"""The one place where errors become HTTP: `{"detail": "...", "status_code": n}` for every one of them."""

from __future__ import annotations

import logging
import uuid
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sienn_ray.api.schemas import ErrorResponse
from sienn_ray.errors import (
    ArtifactError,
    CapacityError,
    EngineError,
    InvalidInputError,
    NotFoundError,
    SiennError,
    TransitionError,
    UploadTooLargeError,
)

logger = logging.getLogger(__name__)

# The first class that fits counts, so a subclass stands before its base.
_STATUS_OF: tuple[tuple[type[SiennError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (UploadTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InvalidInputError, HTTPStatus.BAD_REQUEST),
    (TransitionError, HTTPStatus.CONFLICT),
    (CapacityError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ArtifactError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (EngineError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_MAX_SHOWN_CHARS = 100


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of error responses."""
    return {int(status): {"model": ErrorResponse, "description": status.phrase} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of an application the one shape."""
    app.add_exception_handler(SiennError, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected_error)


def error_response(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the one shape. Half of a surrogate pair, which a request's JSON can escape, is shown escaped."""
    shown = detail.encode(errors="backslashreplace").decode()
    return JSONResponse({"detail": shown, "status_code": int(status)}, status_code=int(status), headers=headers)


async def _on_own_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SiennError)  # noqa: S101  (Starlette's handlers are typed for any exception)
    status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s %s: %s", request.method, request.url.path, error.message)
    retry = {"Retry-After": str(error.retry_after_s)} if isinstance(error, CapacityError) else None
    return error_response(status, error.message, retry)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)  # noqa: S101
    detail = "; ".join(_sentence(fault) for fault in error.errors())
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _sentence(fault: dict[str, Any]) -> str:
    """Field, value and limit of one fault."""
    where = ".".join(str(part) for part in fault["loc"] if part != "body") or "body"
    if fault["type"] == "missing":
        return f"{where}: {fault['msg']}"
    value = repr(fault.get("input"))
    shown = value if len(value) <= _MAX_SHOWN_CHARS else value[:_MAX_SHOWN_CHARS] + "…"
    return f"{where}: {fault['msg']} (got {shown})"


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"{request.method} {request.url.path} is not part of this API; /docs lists what is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not allowed on {request.url.path}; /docs lists what is"
    return error_response(error.status_code, detail, dict(error.headers or {}))


async def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    request_id = uuid.uuid4().hex
    logger.error("request %s: %s %s failed", request_id, request.method, request.url.path, exc_info=error)
    detail = f"Internal error; the server's log has the details under request id {request_id}"
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
