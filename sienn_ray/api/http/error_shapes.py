"""The two shapes of errors: ours, and under /v1 the one that clients of the OpenAI API read."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

OPENAI_PREFIX = "/v1"
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

    def as_json(self, *, is_openai: bool = False) -> dict[str, Any]:
        """The body. Half of a surrogate pair, which a request's JSON can escape, is shown escaped."""
        detail = self.detail.encode(errors="backslashreplace").decode()
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


def _openai_type(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _OPENAI_TYPES.get(HTTPStatus(status), "server_error")
    return _OPENAI_TYPES.get(HTTPStatus(status), "invalid_request_error")
