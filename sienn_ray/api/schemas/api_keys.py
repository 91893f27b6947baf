"""Bodies about API keys."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.owners import OWNER_PATTERN
from sienn_ray.access.principals import ADMIN_OWNER, Credential, Principal, Scope
from sienn_ray.access.quotas import QuotaState
from sienn_ray.api.schemas.common import Inline, RequestBody, ResponseBody, Timestamp
from sienn_ray.api.schemas.limits import OwnerLimits
from sienn_ray.jobs.ids import shown

KEY_ID = "5d2f6a10-9c3e-4b7a-8f21-0c4d5e6f7a8b"
_PREFIX = "k3Xb9QmT2vLa"
_TEXT = f"sienn_{_PREFIX}_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
DAY_S = 86400
_MAX_LIFETIME_S = 10 * 366 * DAY_S
DEFAULT_GRACE_S = DAY_S
_RATE_LIMIT = r"[1-9][0-9]{0,8}/(second|minute|hour|day)"
_RATE_LIMITS = rf"{_RATE_LIMIT}(;{_RATE_LIMIT}){{0,3}}"

ScopeName = Annotated[Scope, Inline()]


class CreateApiKeyRequest(RequestBody):
    """An API key to make."""

    name: str = Field(
        pattern=r"^[^\x00-\x1f\x7f]+$", max_length=128, description="What it is for.", examples=["Ada's laptop"]
    )
    owner: str = Field(
        ADMIN_OWNER,
        pattern=OWNER_PATTERN,
        description="Whose datasets, jobs and exports it sees and makes; keys of one owner see the same.",
        examples=["ada"],
    )
    scopes: list[ScopeName] = Field(
        [Scope.READ, Scope.TRAIN, Scope.INFER, Scope.EXPORT],
        min_length=1,
        max_length=len(Scope),
        description="What it may be used for: `read` lists and looks at things, `train` uploads, fine-tunes and "
        "deletes, `infer` asks models, `export` makes and downloads exports, `admin` does everything and sees what all "
        "owners have.",
        examples=[["read", "infer"]],
        json_schema_extra={"uniqueItems": True},
    )
    rate_limits: str | None = Field(
        None,
        description="Requests that it may send, as `100/minute;1000/hour`; by default it counts with its address.",
        examples=["600/minute;20000/hour"],
        json_schema_extra={"pattern": f"^{_RATE_LIMITS}$"},
    )
    tokens_per_minute: int | None = Field(
        None,
        ge=1,
        le=2**53 - 1,
        description="Tokens that its requests to models may take in a minute, prompts and answers together; by default "
        "SIENN_KEY_TOKENS_PER_MINUTE.",
        examples=[60000],
    )
    max_open_answers: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Requests to models that it may have open at once; by default SIENN_KEY_MAX_OPEN_ANSWERS.",
        examples=[8],
    )
    lifetime_s: int | None = Field(
        None, ge=1, le=_MAX_LIFETIME_S, description="Seconds until it expires; by default never.", examples=[90 * DAY_S]
    )

    @field_validator("scopes")
    @classmethod
    def _check_scopes(cls, scopes: list[Scope]) -> list[Scope]:
        if repeated := sorted({scope for scope in scopes if scopes.count(scope) > 1}):
            raise ValueError(f"names a scope more than once: {', '.join(repeated)}")
        return scopes

    @field_validator("rate_limits")
    @classmethod
    def _check_rate_limits(cls, limits: str | None) -> str | None:
        if limits is not None and not re.fullmatch(_RATE_LIMITS, limits):
            raise ValueError(f"'{shown(limits)}' isn't of the form '100/minute;1000/hour'")
        return limits


class RotateApiKeyRequest(RequestBody):
    """The end of a key, and its successor."""

    grace_s: int = Field(
        DEFAULT_GRACE_S, ge=0, le=366 * DAY_S, description="Seconds that the old key stays valid.", examples=[DAY_S]
    )
    lifetime_s: int | None = Field(
        None,
        ge=1,
        le=_MAX_LIFETIME_S,
        description="Seconds until the new key expires; by default never.",
        examples=[None],
    )


class ApiKeySummary(ResponseBody):
    """An API key, without its secret."""

    id: str = Field(description="Its id.", examples=[KEY_ID])
    name: str = Field(description="What it is for.", examples=["Ada's laptop"])
    owner: str = Field(description="Whose things it sees and makes.", examples=["ada"])
    scopes: list[ScopeName] = Field(description="What it may be used for.", examples=[["infer", "read"]])
    rate_limits: str | None = Field(
        description="Requests that it may send; null where it counts with its address.", examples=[None]
    )
    tokens_per_minute: int | None = Field(
        description="Tokens that its requests to models may take in a minute; null is the service's default.",
        examples=[60000],
    )
    max_open_answers: int | None = Field(
        description="Requests to models that it may have open at once; null is the service's default.", examples=[8]
    )
    prefix: str = Field(description="What the key has behind `sienn_`; no secret.", examples=[_PREFIX])
    created_at: Timestamp
    expires_at: Timestamp | None = Field(
        description="When it ends by itself, or did; null is never.", examples=["2026-02-10T10:30:00.000Z"]
    )
    revoked_at: Timestamp | None = Field(description="When it was revoked; null if it wasn't.", examples=[None])

    @classmethod
    def of(cls, record: ApiKeyRecord) -> Self:
        """Return what may be shown of a key."""
        return cls(**_shown(record))


class CreatedApiKey(ApiKeySummary):
    """A new API key. This is the only time that its secret is shown."""

    key: str = Field(description="The key, to be sent with each request. It can't be shown again.", examples=[_TEXT])

    @classmethod
    def with_secret(cls, record: ApiKeyRecord, key: ApiKey) -> Self:
        """Return a key as it is shown to who has made it."""
        return cls(**_shown(record), key=key.text)


class ApiKeyList(ResponseBody):
    """All API keys, the newest first."""

    keys: list[ApiKeySummary] = Field(description="The keys, those that have ended included.")
    count: int = Field(description="Their number, on all pages.", examples=[3])
    next_cursor: str | None = Field(description="`cursor` of the next page; null after the last one.", examples=[None])


class Caller(ResponseBody):
    """The caller of this request."""

    owner: str = Field(description="Whose things it sees and makes.", examples=["ada"])
    scopes: list[ScopeName] = Field(description="What it may do.", examples=[["infer", "read"]])
    key_id: str | None = Field(description="The API key that it comes with, if it does.", examples=[KEY_ID])
    authentication: Literal["on", "off"] = Field(description="Whether requests need an API key.", examples=["on"])
    credential: Annotated[Credential, Inline()] = Field(
        description="What it proves itself with: an API key, an access token of this service (`access_token`) or "
        "of the outside issuer (`oidc_token`), the session of a browser, or nothing.",
        examples=["api_key"],
    )
    limits: OwnerLimits = Field(description="What this owner may have, and has.")

    @classmethod
    def of(cls, principal: Principal, state: QuotaState, *, is_auth_on: bool) -> Self:
        """Return what a caller is told of itself."""
        return cls(
            owner=principal.owner,
            scopes=sorted(principal.scopes),
            key_id=principal.key_id,
            authentication="on" if is_auth_on else "off",
            credential=principal.credential,
            limits=OwnerLimits.of(state),
        )


def _shown(record: ApiKeyRecord) -> dict[str, object]:
    return {**record.model_dump(exclude={"sha256", "scopes"}), "scopes": sorted(record.scopes)}
