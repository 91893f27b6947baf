"""API keys: make, list, rotate and revoke them; and who the caller is."""

from __future__ import annotations

import uuid
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.principals import ADMIN_OWNER, Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.paging import cursor_query, limit_query
from sienn_ray.api.lists.whole import listed
from sienn_ray.api.schemas.api_keys import (
    KEY_ID,
    ApiKeyList,
    ApiKeySummary,
    Caller,
    CreateApiKeyRequest,
    CreatedApiKey,
    RotateApiKeyRequest,
)
from sienn_ray.api.schemas.ids import KeyIdPath
from sienn_ray.jobs.schema import utc_now

router = APIRouter(prefix="/api", tags=["Access"])

_ADMIN = [needs(Scope.ADMIN)]
_UNAVAILABLE = documented(HTTPStatus.SERVICE_UNAVAILABLE)
_OF_ONE_KEY = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


@router.get("/auth/me", summary="Who am I, and what may I do?", responses=_UNAVAILABLE, dependencies=[needs(*Scope)])
async def me(principal: PrincipalDep, backends: BackendsDep) -> Caller:
    """The caller's owner, scopes, kind of credential and limits. Without authentication, everybody is the admin."""
    state = await backends.tracker.quota_state(principal.owner)
    return Caller.of(principal, state, is_auth_on=backends.settings.is_auth_on)


@router.post(
    "/keys",
    status_code=HTTPStatus.CREATED,
    summary="Create an API key",
    responses={**_UNAVAILABLE, **documented(HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=_ADMIN,
)
async def create_key(body: CreateApiKeyRequest, backends: BackendsDep, response: Response) -> CreatedApiKey:
    """Make a key. Its secret is in this answer and nowhere else: only its hash is kept."""
    key = ApiKey.random()
    record = _record(key, body.lifetime_s).model_copy(
        update={
            "name": body.name,
            "owner": body.owner,
            "scopes": frozenset(body.scopes),
            "rate_limits": body.rate_limits,
            "tokens_per_minute": body.tokens_per_minute,
            "max_open_answers": body.max_open_answers,
        }
    )
    return _shown_once(await backends.tracker.add_api_key(record), key, response)


@router.get(
    "/keys",
    summary="List the API keys",
    responses={**_UNAVAILABLE, **documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=_ADMIN,
)
async def list_keys(
    backends: BackendsDep,
    limit: Annotated[int | None, limit_query("Keys")] = None,
    cursor: Annotated[str | None, cursor_query(KEY_ID)] = None,
) -> ApiKeyList:
    """Keys, the newest first, without their secrets: all of them, or page by page."""
    page = await listed(backends.tracker.api_keys, limit, cursor)
    keys = [ApiKeySummary.of(record) for record in page.records]
    return ApiKeyList(keys=keys, count=page.count, next_cursor=page.next_cursor)


@router.post(
    "/keys/{key_id}/rotate",
    status_code=HTTPStatus.CREATED,
    summary="Rotate an API key",
    responses={**_OF_ONE_KEY, **documented(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=_ADMIN,
)
async def rotate_key(
    key_id: KeyIdPath, body: RotateApiKeyRequest, backends: BackendsDep, response: Response
) -> CreatedApiKey:
    """Make a successor with the same name, owner and scopes. Both keys are valid until the grace period is over."""
    key = ApiKey.random()
    successor = await backends.tracker.rotate_api_key(key_id, _record(key, body.lifetime_s), float(body.grace_s))
    return _shown_once(successor, key, response)


@router.delete("/keys/{key_id}", summary="Revoke an API key", responses=_OF_ONE_KEY, dependencies=_ADMIN)
async def revoke_key(key_id: KeyIdPath, backends: BackendsDep) -> ApiKeySummary:
    """End a key for good, within five seconds. What it made stays with its owner."""
    return ApiKeySummary.of(await backends.tracker.revoke_api_key(key_id))


def _record(key: ApiKey, lifetime_s: int | None) -> ApiKeyRecord:
    """A new key that nobody owns yet."""
    now = utc_now()
    return ApiKeyRecord(
        id=str(uuid.uuid4()),
        prefix=key.prefix,
        sha256=key.sha256,
        name="",
        owner=ADMIN_OWNER,
        scopes=frozenset(),
        created_at=now,
        expires_at=None if lifetime_s is None else now + timedelta(seconds=lifetime_s),
    )


def _shown_once(record: ApiKeyRecord, key: ApiKey, response: Response) -> CreatedApiKey:
    response.headers["Cache-Control"] = "no-store"
    return CreatedApiKey.with_secret(record, key)
