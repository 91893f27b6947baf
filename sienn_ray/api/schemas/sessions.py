"""Bodies about sessions of browsers."""

from __future__ import annotations

from pydantic import Field

from sienn_ray.api.schemas.api_keys import ScopeName
from sienn_ray.api.schemas.common import ResponseBody, Timestamp


class SessionResponse(ResponseBody):
    """A new session of a browser, which has its cookie."""

    owner: str = Field(description="Whose things it sees and makes.", examples=["ada"])
    scopes: list[ScopeName] = Field(description="What it may be used for.", examples=[["infer", "read"]])
    expires_at: Timestamp


class SessionsEnd(ResponseBody):
    """The end of all sessions of an owner."""

    owner: str = Field(description="Whose sessions they were.", examples=["https://id.example.org|ada"])
    num_ended: int = Field(description="How many have ended.", examples=[2])


class SessionEnd(ResponseBody):
    """The end of a session."""

    ended: bool = Field(description="Whether the request came with a session's cookie.", examples=[True])
    issuer_logout_url: str | None = Field(
        description="Where the browser logs out of the outside issuer as well; null where there is none.",
        examples=["https://id.example.org/logout?client_id=sienn"],
    )
