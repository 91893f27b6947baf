"""The shapes of errors: ours, with more for clients of OAuth, and under /v1 what clients of the OpenAI API read."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

OPENAI_PREFIX = "/v1"
# Where clients look for OAuth's names of errors (RFC 6749, section 5.2).
TOKEN_PATH = "/api/auth/token"  # nosec B105 # a path, no secret
_OAUTH_CODES = {
    HTTPStatus.UNAUTHORIZED: "invalid_client",
    HTTPStatus.FORBIDDEN: "unauthorized_client",
    HTTPStatus.TOO_MANY_REQUESTS: "temporarily_unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE: "temporarily_unavailable",
}
_OPENAI_TYPES = {
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
}


@dataclass(frozen=True)
class Fault:
    """An error as a client reads it.

    Args:
        status: The HTTP status.
        detail: What is wrong, the limit, and the way out.
        retry_after_s: Seconds after which another try makes sense.
        field: The field of the request that is wrong, for programs.
        code: What is wrong, for programs.
    """

    status: int
    detail: str
    retry_after_s: int | None = None
    field: str | None = None
    code: str | None = None

    def as_json(self, *, is_openai: bool = False, is_oauth: bool = False) -> dict[str, Any]:
        """The body. Half of a surrogate pair, which a request's JSON can escape, is shown escaped."""
        detail = self.detail.encode(errors="backslashreplace").decode()
        if is_oauth:
            description = detail.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")
            ours = {"detail": detail, "status_code": int(self.status)}
            return {"error": self.code or _oauth_code(self.status), "error_description": description, **ours}
        if not is_openai:
            return {"detail": detail, "status_code": int(self.status)}
        error = {"message": detail, "type": _openai_type(self.status), "param": self.field, "code": self.code}
        return {"error": error}


def is_openai(scope: Scope | None) -> bool:
    """Return whether a request is to the part of the API that is the OpenAI API's."""
    if scope is None:
        return False
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path == OPENAI_PREFIX or path.startswith(OPENAI_PREFIX + "/")


def is_oauth(scope: Scope | None) -> bool:
    """Return whether a request is one for a token."""
    return scope is not None and str(scope["path"]).removeprefix(scope.get("root_path", "")) == TOKEN_PATH


def _oauth_code(status: int) -> str:
    if status in _OAUTH_CODES:
        return _OAUTH_CODES[HTTPStatus(status)]
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request"


def _openai_type(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _OPENAI_TYPES.get(HTTPStatus(status), "server_error")
    return _OPENAI_TYPES.get(HTTPStatus(status), "invalid_request_error")
