"""Security schemes of the OpenAPI document, and the scopes that each operation needs."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import NeededScope

Json = dict[str, Any]

BEARER, API_KEY, OAUTH, SESSION = "Bearer", "ApiKey", "OAuth2", "Session"
_SCOPES = {
    Scope.READ: "list and look at things",
    Scope.TRAIN: "upload, fine-tune and delete",
    Scope.INFER: "ask models",
    Scope.EXPORT: "make and download exports",
    Scope.ADMIN: "everything, of all owners",
}
SCHEMES: Json = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as OpenAI's clients send theirs, or an access token.",
    },
    API_KEY: {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    OAUTH: {
        "type": "oauth2",
        "description": "An access token for an API key: client_id is the key's id, client_secret the key itself.",
        "flows": {
            "clientCredentials": {
                # Relative to the document, so that it is right behind a prefix too.
                "tokenUrl": "api/auth/token",
                "refreshUrl": "api/auth/token",
                "scopes": {scope.value: words for scope, words in _SCOPES.items()},
            }
        },
    },
    SESSION: {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-sienn_session",
        "description": "The cookie of a browser's session, for pages of this service; `sienn_session` on a loopback "
        "address.",
    },
}


def scopes_by_operation(routes: Iterable[BaseRoute]) -> dict[str, tuple[Scope, ...]]:
    """Return the scopes of which an operation needs one, by its id; an open one isn't there."""
    return {
        route.name: needed.scopes
        for route in routes
        if isinstance(route, APIRoute)
        for needed in (depends.dependency for depends in route.dependencies)
        if isinstance(needed, NeededScope)
    }


def add_security(operation: Json, scopes: tuple[Scope, ...], *, is_required: bool) -> None:
    """Say which keys an operation takes, and how it refuses others.

    Args:
        operation: The operation, which is changed.
        scopes: Of which one is needed.
        is_required: Whether this service asks for a key at all.
    """
    # One alternative each; for schemes other than OAuth, the list has the roles that are needed (OpenAPI 3.1).
    alternatives = [{scheme: [scope.value]} for scheme in SCHEMES for scope in scopes]
    operation["security"] = alternatives if is_required else [{}, *alternatives]
    for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        operation["responses"].setdefault(str(int(status)), {})
