"""Names that a request may have: unknown query parameters are refused, since most likely they are misspelt ones."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute, APIWebSocketRoute
from pydantic import BaseModel

from sienn_ray.api.http.error_shapes import is_openai


async def refuse_unknown_parameters(connection: HTTPConnection) -> None:
    """Refuse query parameters that the route doesn't have; under /v1, clients may send what they like.

    So may those who send browsers to a route that the document doesn't have, such as an issuer after a login.

    Raises:
        RequestValidationError: There are such.
        WebSocketRequestValidationError: There are such, and it is the route of a WebSocket.
    """
    route = connection.scope.get("route")
    if not isinstance(route, APIRoute | APIWebSocketRoute) or is_openai(connection.scope):
        return
    if isinstance(route, APIRoute) and not route.include_in_schema:
        return
    unknown = [name for name in connection.query_params if name not in query_names(route)]
    if unknown:
        kind = RequestValidationError if isinstance(route, APIRoute) else WebSocketRequestValidationError
        raise kind(
            [
                {"type": "extra_forbidden", "loc": ("query", name), "msg": "", "input": connection.query_params[name]}
                for name in unknown
            ]
        )


def query_names(route: APIRoute | APIWebSocketRoute) -> frozenset[str]:
    """Names of a route's query parameters."""
    return frozenset(field.alias for dependant in _all(route.dependant) for field in dependant.query_params)


def body_names(route: APIRoute) -> frozenset[str]:
    """Names of the fields of a route's body."""
    kinds: list[Any] = [field.field_info.annotation for field in route.dependant.body_params]
    models = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel)]
    return frozenset(name for model in models for name in model.model_fields)


def known_names(request: Request) -> frozenset[str]:
    """Names of all parameters and fields that a request may have."""
    route = request.scope.get("route")
    return query_names(route) | body_names(route) if isinstance(route, APIRoute) else frozenset()


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _all(each)
