"""OAuth 2.0: access tokens for API keys, and the keys that they are signed with."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Request, Response

from sienn_ray.access.api_keys import ApiKey
from sienn_ray.access.principals import Principal, Scope, narrowed
from sienn_ray.access.refresh_tokens import RefreshFault, RefreshRequest, RefreshTokenRecord, new_refresh_token
from sienn_ray.access.secret_texts import sha256_of
from sienn_ray.api.access.access_tokens import AccessTokens, jwks_of
from sienn_ray.api.access.callers import CredentialsDep, note_proof
from sienn_ray.api.access.key_lookup import ADMIN_KEY_ID, KeyLookup
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import AllBackendsDep, Backends
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.public_urls import public_base
from sienn_ray.api.http.token_limits import takes_token_permit
from sienn_ray.api.schemas.tokens import AuthorizationServer, JwksResponse, RotatedTokenKey, TokenResponse
from sienn_ray.errors import InvalidClientError, MediaTypeError, TokenRequestError, UnauthorizedError
from sienn_ray.jobs.schema import utc_now

router = APIRouter(tags=["Access"])

_FORM = "application/x-www-form-urlencoded"
_CLIENT_CREDENTIALS, _REFRESH_TOKEN = "client_credentials", "refresh_token"
_FIELDS = ("grant_type", "client_id", "client_secret", "refresh_token", "scope")
_MAX_FIELDS = 20
_LIKE_A_SCOPE = re.compile(r"[a-z.:-]{1,40}")
_BODY = {
    "required": True,
    "content": {
        _FORM: {
            "schema": {
                "type": "object",
                "required": ["grant_type"],
                "properties": {
                    "grant_type": {
                        "type": "string",
                        "enum": [_CLIENT_CREDENTIALS, _REFRESH_TOKEN],
                        "description": "What the token is asked for with: an API key, or a refresh token.",
                        "examples": [_CLIENT_CREDENTIALS],
                    },
                    "client_id": {
                        "type": "string",
                        "description": "The API key's id or prefix, unless the header `Authorization: Basic` has it.",
                        "examples": ["k3Xb9QmT2vLa"],
                    },
                    "client_secret": {
                        "type": "string",
                        "description": "The API key itself, unless the header has it.",
                        "examples": ["sienn_k3Xb9QmT2vLa_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"],
                    },
                    "refresh_token": {
                        "type": "string",
                        "description": "The refresh token of the last answer.",
                        "examples": ["siennr_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"],
                    },
                    "scope": {
                        "type": "string",
                        "description": "Scopes that are wanted, with blanks between; by default all that the key has.",
                        "examples": ["read infer"],
                    },
                },
            }
        }
    },
}
_UNAVAILABLE = documented(HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class _Client:
    """An API key that has proved to be one."""

    id: str
    principal: Principal


@router.post(
    "/api/auth/token",
    summary="Get an access token",
    response_model_exclude_none=True,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    openapi_extra={"requestBody": _BODY},
    dependencies=[takes_token_permit()],
)
async def issue_token(
    request: Request, response: Response, backends: AllBackendsDep, credentials: CredentialsDep
) -> TokenResponse:
    """Exchange an API key, or a refresh token, for an access token that is valid for minutes (RFC 6749).

    The client is the API key: `client_id` is its id or prefix, `client_secret` the key itself, both in the form or in
    the header `Authorization: Basic`. A refresh token is exchanged once, and again within 30 s where its answer was
    lost; one that comes again otherwise ends all that came from the same exchange of the key. All end with their key.
    """
    form = await _form_of(request)
    response.headers["Cache-Control"] = "no-store"
    client = await _client_of(request, form, credentials.keys)
    if client is not None:
        note_proof(request.scope, client.principal)
    grant = form.get("grant_type")
    if grant == _CLIENT_CREDENTIALS:
        return await _for_key(client, form, backends, credentials.tokens)
    if grant == _REFRESH_TOKEN:
        return await _for_refresh_token(client, form, backends, credentials.tokens)
    if grant is None:
        raise TokenRequestError("grant_type is missing")
    raise TokenRequestError(
        f"grant_type must be '{_CLIENT_CREDENTIALS}' or '{_REFRESH_TOKEN}'", "unsupported_grant_type"
    )


@router.get("/api/auth/jwks", summary="Keys that access tokens are signed with", responses=_UNAVAILABLE)
async def token_keys(backends: AllBackendsDep, response: Response) -> JwksResponse:
    """The public keys, as verifiers of JWTs read them (RFC 7517)."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return JwksResponse.model_validate(jwks_of(await backends.tracker.token_keys()))


@router.get("/.well-known/jwks.json", summary="The same, where verifiers look for them", responses=_UNAVAILABLE)
async def well_known_token_keys(backends: AllBackendsDep, response: Response) -> JwksResponse:
    """See `GET /api/auth/jwks`."""
    return await token_keys(backends, response)


@router.get("/.well-known/oauth-authorization-server", summary="Where and how tokens are got")
async def authorization_server(request: Request, backends: AllBackendsDep) -> AuthorizationServer:
    """The metadata of this service for clients of OAuth 2.0 (RFC 8414)."""
    settings = backends.settings
    base = public_base(request, settings)
    return AuthorizationServer(
        issuer=settings.token_issuer,
        token_endpoint=f"{base}/api/auth/token",
        jwks_uri=f"{base}/.well-known/jwks.json",
        scopes_supported=list(Scope),
        response_types_supported=[],
        grant_types_supported=[_CLIENT_CREDENTIALS, _REFRESH_TOKEN],
        token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"],
    )


@router.post(
    "/api/auth/token-keys/rotate",
    status_code=HTTPStatus.CREATED,
    summary="Have access tokens signed with a new key",
    responses=_UNAVAILABLE,
    dependencies=[needs(Scope.ADMIN)],
)
async def rotate_token_keys(backends: AllBackendsDep) -> RotatedTokenKey:
    """Make a new key. Tokens that were signed with the ones before stay valid until they expire."""
    return RotatedTokenKey.of(await backends.tracker.rotate_token_keys())


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of the body that have a value.

    Raises:
        MediaTypeError: It is no form.
        TokenRequestError: A field comes twice, or there are too many.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise MediaTypeError(f"the body must be a form; send the header 'Content-Type: {_FORM}'")
    try:
        pairs = parse_qsl((await request.body()).decode(), max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise TokenRequestError(f"the body isn't a form in UTF-8 with at most {_MAX_FIELDS} fields") from None
    form = dict(pairs)
    if twice := [name for name in _FIELDS if [each for each, _ in pairs].count(name) > 1]:
        raise TokenRequestError(f"{twice[0]} comes more than once")
    return form


async def _client_of(request: Request, form: dict[str, str], keys: KeyLookup) -> _Client | None:
    """The client that says who it is, or None if it doesn't.

    Raises:
        InvalidClientError: It doesn't prove it.
        TokenRequestError: It does so twice.
    """
    candidates = _basic_of(request)
    if candidates and "client_secret" in form:
        raise TokenRequestError("the client's secret is in the header 'Authorization' and in the form; send it once")
    if not candidates and "client_secret" in form:
        candidates = [(form.get("client_id", ""), form["client_secret"])]
    for client_id, secret in candidates:
        try:
            principal = await keys.principal_of(secret)
        except UnauthorizedError:
            continue
        key = ApiKey.parsed(secret)
        prefix = ADMIN_KEY_ID if keys.is_admin_key(secret) or key is None else key.prefix
        if client_id in {prefix, principal.key_id} and form.get("client_id", client_id) == client_id:
            return _Client(prefix, principal)
    if candidates:
        raise InvalidClientError(
            "client_id must be the id or the prefix of an API key that is valid, and client_secret the key itself"
        )
    return None


def _basic_of(request: Request) -> list[tuple[str, str]]:
    """Name and password of `Authorization: Basic`, as the standard encodes them and as many clients send them."""
    scheme, _, encoded = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = password = ""  # nosec B105 # there is none
    if not colon:
        raise InvalidClientError("the header 'Authorization: Basic' has no name and password")
    decoded = (unquote_plus(name), unquote_plus(password))
    return list(dict.fromkeys([decoded, (name, password)]))


async def _for_key(
    client: _Client | None, form: dict[str, str], backends: Backends, tokens: AccessTokens
) -> TokenResponse:
    if client is None:
        raise InvalidClientError(
            "client_id and client_secret are missing; they are the id of an API key and the key itself"
        )
    wanted = _scopes_of(form)
    held = client.principal.scopes
    scopes = held if wanted is None else wanted
    if missing := scopes - narrowed(held, scopes):
        raise TokenRequestError(f"the API key hasn't the scope {' '.join(sorted(missing))}", "invalid_scope")
    refresh_token = None
    lifetime_s = backends.settings.refresh_token_lifetime_s
    # A key that the database doesn't know would not end them.
    if lifetime_s and client.id != ADMIN_KEY_ID:
        refresh_token, now = new_refresh_token(), utc_now()
        record = RefreshTokenRecord(
            sha256=sha256_of(refresh_token),
            family=uuid.uuid4().hex,
            client_id=client.id,
            scopes=scopes,
            created_at=now,
            expires_at=now + timedelta(seconds=lifetime_s),
        )
        await backends.tracker.add_refresh_token(record)
    return await _answer(tokens, client.id, scopes, refresh_token)


async def _for_refresh_token(
    client: _Client | None, form: dict[str, str], backends: Backends, tokens: AccessTokens
) -> TokenResponse:
    if "refresh_token" not in form:
        raise TokenRequestError("refresh_token is missing")
    successor = new_refresh_token()
    wanted = _scopes_of(form)
    outcome = await backends.tracker.exchange_refresh_token(
        RefreshRequest(sha256_of(form["refresh_token"]), sha256_of(successor), client.id if client else None, wanted)
    )
    if outcome.successor is None:
        raise (outcome.fault or RefreshFault.UNKNOWN).error
    scopes = outcome.successor.scopes if wanted is None else wanted
    return await _answer(tokens, outcome.successor.client_id, scopes, successor)


async def _answer(
    tokens: AccessTokens, client_id: str, scopes: frozenset[Scope], refresh_token: str | None
) -> TokenResponse:
    token, lifetime_s = await tokens.issue(client_id, scopes)
    return TokenResponse(
        access_token=token, expires_in=lifetime_s, refresh_token=refresh_token, scope=" ".join(sorted(scopes))
    )


def _scopes_of(form: dict[str, str]) -> frozenset[Scope] | None:
    """The scopes that are wanted, or None where all are."""
    names = form.get("scope", "").split()
    if unknown := [name for name in names if name not in set(Scope)]:
        known = ", ".join(Scope)
        # Not shown where it may be a secret that was put into the wrong field.
        shown = f"'{unknown[0]}'" if _LIKE_A_SCOPE.fullmatch(unknown[0]) else "a name that there isn't"
        raise TokenRequestError(f"scope has {shown}, and there are {known}", "invalid_scope")
    return frozenset(map(Scope, names)) or None
