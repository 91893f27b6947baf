"""Sessions of browsers: made with an API key or by a login at an outside issuer, and ended."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from sienn_ray.access.api_keys import ApiKey
from sienn_ray.access.jwts import looks_like_jwt
from sienn_ray.access.owners import MAX_OWNER_CHARS
from sienn_ray.access.principals import Credential, Principal, Scope
from sienn_ray.api.access.callers import CredentialsDep, note_proof
from sienn_ray.api.access.credentials import Credentials, sent_text
from sienn_ray.api.access.key_lookup import ADMIN_KEY_ID
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.access.session_cookies import LOGIN, SESSION
from sienn_ray.api.deps import AllBackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.public_urls import public_base, public_path
from sienn_ray.api.http.token_limits import takes_token_permit
from sienn_ray.api.oidc.login import LOGIN_LIFETIME_S, Login, Return
from sienn_ray.api.schemas.sessions import SessionEnd, SessionResponse, SessionsEnd
from sienn_ray.errors import CapacityError, ForbiddenError, InvalidInputError, NotFoundError

router = APIRouter(prefix="/api/auth", tags=["Access"])

_SOMEBODY = [needs(*Scope)]
_UNAVAILABLE = documented(HTTPStatus.SERVICE_UNAVAILABLE)
_CALLBACK = "/api/auth/callback"
_NO_STORE = {"Cache-Control": "no-store"}


@router.post(
    "/session",
    status_code=HTTPStatus.CREATED,
    summary="Exchange an API key for a cookie",
    responses={**_UNAVAILABLE, **documented(HTTPStatus.BAD_REQUEST, HTTPStatus.TOO_MANY_REQUESTS)},
    dependencies=[*_SOMEBODY, takes_token_permit()],
)
async def create_session(
    request: Request, response: Response, backends: AllBackendsDep, credentials: CredentialsDep
) -> SessionResponse:
    """Begin a session of a browser, whose pages can't set headers of an `EventSource` or a `WebSocket`.

    The cookie can't be read by scripts, counts for pages of this service alone, and ends with its API key, after
    `SIENN_SESSION_LIFETIME_S`, or after `SIENN_SESSION_IDLE_TIMEOUT_S` without a request.
    """
    text = sent_text(request.headers)
    if text is None or (looks_like_jwt(text) and not credentials.keys.is_admin_key(text)):
        raise InvalidInputError("a session is begun with an API key; send one as 'Authorization: Bearer <key>'")
    principal = await credentials.keys.principal_of(text)
    key = ApiKey.parsed(text)
    client_id = ADMIN_KEY_ID if key is None or credentials.keys.is_admin_key(text) else key.prefix
    await _end(request, credentials)
    secret, record = await credentials.sessions.begin(principal, client_id)
    lifetime_s = backends.settings.session_lifetime_s
    credentials.cookies.put(response, request.scope, SESSION, secret, max_age_s=lifetime_s, same_site="strict")
    response.headers.update(_NO_STORE)
    return SessionResponse(owner=record.owner, scopes=sorted(record.scopes), expires_at=record.expires_at)


@router.delete("/session", summary="End the session of a browser", responses=_UNAVAILABLE, dependencies=_SOMEBODY)
async def end_session(
    request: Request, response: Response, principal: PrincipalDep, credentials: CredentialsDep
) -> SessionEnd:
    """End the session whose cookie comes with the request, here and in all its tabs."""
    return await _ended(request, response, principal, credentials)


@router.delete(
    "/sessions", summary="End all sessions of an owner", responses=_UNAVAILABLE, dependencies=[needs(Scope.ADMIN)]
)
async def end_sessions(
    credentials: CredentialsDep,
    owner: Annotated[
        str,
        Query(
            min_length=1,
            max_length=MAX_OWNER_CHARS,
            description="Whose sessions: an owner of API keys, or who has logged in at the outside issuer.",
            examples=["https://id.example.org|ada"],
        ),
    ],
) -> SessionsEnd:
    """End them within five seconds, in all browsers. Who may still log in, or has a key, can begin another one."""
    return SessionsEnd(owner=owner, num_ended=await credentials.sessions.end_all_of(owner))


@router.post("/logout", summary="Log out", responses=_UNAVAILABLE, dependencies=_SOMEBODY)
async def log_out(
    request: Request, response: Response, principal: PrincipalDep, credentials: CredentialsDep
) -> SessionEnd:
    """End the session as `DELETE /api/auth/session` does. After a login at an outside issuer, see its own URL."""
    return await _ended(request, response, principal, credentials)


@router.get("/login", include_in_schema=False, dependencies=[takes_token_permit()])
async def log_in(
    request: Request,
    backends: AllBackendsDep,
    credentials: CredentialsDep,
    next_path: Annotated[str, Query(alias="next")] = "/docs",
) -> RedirectResponse:
    """Send a browser to the outside issuer."""
    base = public_base(request, backends.settings)
    secret = await backends.tracker.signing_key()
    url, cookie = await _login_of(credentials).start(secret, base + _CALLBACK, next_path)
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER, _NO_STORE)
    credentials.cookies.put(response, request.scope, LOGIN, cookie, max_age_s=LOGIN_LIFETIME_S, same_site="lax")
    return response


@router.get("/callback", include_in_schema=False, dependencies=[takes_token_permit()])
async def come_back(request: Request, backends: AllBackendsDep, credentials: CredentialsDep) -> RedirectResponse:
    """Take a browser back from the outside issuer, and begin its session."""
    query = request.query_params
    came = Return(query.get("code"), query.get("state"), query.get("error"), query.get("iss"))
    cookie = credentials.cookies.read(request.scope, LOGIN)
    secret = await backends.tracker.signing_key()
    principal, next_path = await _login_of(credentials).finish(secret, cookie, came)
    note_proof(request.scope, principal)
    if not principal.scopes:
        raise ForbiddenError(
            "the issuer knows you, but nothing says what you may do here; SIENN_OIDC_SCOPES, "
            "SIENN_OIDC_ADMIN_GROUP and SIENN_OIDC_DEFAULT_SCOPES do"
        )
    await _end(request, credentials)
    session_secret, _ = await credentials.sessions.begin(principal)
    response = RedirectResponse(public_path(request, backends.settings, next_path), HTTPStatus.SEE_OTHER, _NO_STORE)
    lifetime_s = backends.settings.session_lifetime_s
    # With `strict`, a browser would not send it on this way back, nor when a link leads here.
    credentials.cookies.put(response, request.scope, SESSION, session_secret, max_age_s=lifetime_s, same_site="lax")
    credentials.cookies.put(response, request.scope, LOGIN, "", max_age_s=0, same_site="lax")
    return response


async def _ended(request: Request, response: Response, principal: Principal, credentials: Credentials) -> SessionEnd:
    is_session = principal.credential is Credential.SESSION
    if is_session:
        await _end(request, credentials)
        credentials.cookies.put(response, request.scope, SESSION, "", max_age_s=0, same_site="strict")
    response.headers.update(_NO_STORE)
    url = None
    if is_session and principal.key_id is None and credentials.login is not None:
        try:
            url = await credentials.login.logout_url()
        except CapacityError:  # the session is ended whatever the issuer says
            url = None
    return SessionEnd(ended=is_session, issuer_logout_url=url)


async def _end(request: Request, credentials: Credentials) -> None:
    """End the session of a request's cookie, if it has one."""
    if secret := credentials.cookies.read(request.scope, SESSION):
        await credentials.sessions.end(secret)


def _login_of(credentials: Credentials) -> Login:
    if credentials.login is None:
        raise NotFoundError("nobody can log in here; SIENN_OIDC_ISSUER and SIENN_OIDC_CLIENT_ID name an issuer")
    return credentials.login
