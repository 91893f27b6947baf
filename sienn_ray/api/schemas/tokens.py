"""Bodies about access tokens and the keys that sign them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from sienn_ray.access.token_keys import PublicTokenKey
from sienn_ray.api.schemas.common import ResponseBody, Timestamp

_KID = "W3SDu4H9IHK-MtTyjO44y5TLHADK8OOAg-KcTE3N8E8"
_ISSUER = "https://sienn.example.org"


class TokenResponse(ResponseBody):
    """An access token, as OAuth 2.0 has it (RFC 6749, section 5.1)."""

    access_token: str = Field(
        description="Is sent as an API key is, as `Authorization: Bearer <token>`: a JWT (RFC 9068).",
        examples=["eyJhbGciOiJFUzI1NiIsImtpZCI6Ilcz..."],
    )
    token_type: Literal["Bearer"] = Field("Bearer", description="How it is sent.", examples=["Bearer"])
    expires_in: int = Field(description="Seconds that it is valid.", examples=[900])
    refresh_token: str | None = Field(
        None,
        description="Is exchanged once for another access token and another refresh token. Not there where "
        "`SIENN_REFRESH_TOKEN_LIFETIME_S` is 0, and for `SIENN_ADMIN_KEY`.",
        examples=["siennr_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"],
    )
    scope: str = Field(description="What it may be used for, with blanks between.", examples=["infer read"])


class Jwk(ResponseBody):
    """A public key (RFC 7517)."""

    kty: Literal["EC"] = Field(description="Its kind.", examples=["EC"])
    crv: Literal["P-256"] = Field(description="Its curve.", examples=["P-256"])
    x: str = Field(description="A coordinate.", examples=["sYUOBGmaeowsZH5wEN9UBFyXRVJAYVMZFHwPcOFPotg"])
    y: str = Field(description="The other one.", examples=["YCZzgkHhELK_yUm76rufVzXA5uMO14LMJuUOUXrTgpI"])
    kid: str = Field(description="Its id, which tokens name.", examples=[_KID])
    alg: Literal["ES256"] = Field(description="The algorithm that it is for.", examples=["ES256"])
    use: Literal["sig"] = Field(description="What it is for.", examples=["sig"])


class JwksResponse(ResponseBody):
    """The public keys that valid access tokens may be signed with, the newest first (RFC 7517)."""

    keys: list[Jwk] = Field(description="The keys; none before the first token.")


class RotatedTokenKey(ResponseBody):
    """The key that signs access tokens from now on."""

    kid: str = Field(description="Its id, which tokens name.", examples=[_KID])
    created_at: Timestamp

    @classmethod
    def of(cls, key: PublicTokenKey) -> Self:
        """Return what is told of a key."""
        return cls(kid=key.kid, created_at=key.created_at)


class AuthorizationServer(ResponseBody):
    """The metadata of this service for clients of OAuth 2.0 (RFC 8414)."""

    issuer: str = Field(description="This service, as its tokens name it (`iss` and `aud`).", examples=[_ISSUER])
    token_endpoint: str = Field(description="Where tokens are got.", examples=[f"{_ISSUER}/api/auth/token"])
    jwks_uri: str = Field(
        description="The keys that tokens are signed with.", examples=[f"{_ISSUER}/.well-known/jwks.json"]
    )
    scopes_supported: list[str] = Field(description="All scopes.", examples=[["read", "train", "infer"]])
    response_types_supported: list[str] = Field(
        description="None: browsers log in at an outside issuer.", examples=[[]]
    )
    grant_types_supported: list[str] = Field(
        description="What a token is given for.", examples=[["client_credentials", "refresh_token"]]
    )
    token_endpoint_auth_methods_supported: list[str] = Field(
        description="How clients say who they are.", examples=[["client_secret_basic", "client_secret_post"]]
    )
