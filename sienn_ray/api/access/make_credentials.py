"""Make what knows callers by their credentials, as the settings say."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import SecretStr

from sienn_ray.api.access.access_tokens import AccessTokens
from sienn_ray.api.access.credentials import Credentials
from sienn_ray.api.access.key_lookup import KeyLookup
from sienn_ray.api.access.session_cookies import SessionCookies
from sienn_ray.api.access.session_lookup import SessionLookup
from sienn_ray.api.oidc.fetches import Fetches
from sienn_ray.api.oidc.issuer import Issuer
from sienn_ray.api.oidc.login import Login
from sienn_ray.api.oidc.tokens import OidcTokens
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings


def make_credentials(tracker: Tracker, settings: Settings, origins: Iterable[str]) -> Credentials:
    """Return what knows callers.

    Args:
        tracker: Has keys and sessions, and signs tokens.
        settings: The service's.
        origins: Origins of web sites whose pages may use the service.
    """
    admin_key = _text(settings.admin_key)
    keys = KeyLookup(tracker, admin_key)
    tokens = AccessTokens(tracker, keys, settings.token_issuer, settings.token_lifetime_s)
    sessions = SessionLookup(
        tracker,
        keys,
        admin_key,
        lifetime_s=settings.session_lifetime_s,
        idle_timeout_s=settings.session_idle_timeout_s,
        issuer=settings.oidc_issuer if settings.oidc_issuer and settings.oidc_client_id else None,
    )
    cookies = SessionCookies(origins, is_https=settings.public_url.startswith("https:"))
    oidc, login = _of_issuer(settings)
    return Credentials(keys, tokens, sessions, cookies, oidc, login)


def _of_issuer(settings: Settings) -> tuple[OidcTokens | None, Login | None]:
    if not settings.oidc_issuer:
        return None, None
    issuer = Issuer(settings.oidc_issuer, Fetches(allows_http=settings.oidc_allow_http))
    tokens = OidcTokens(
        issuer,
        audiences=frozenset(settings.oidc_audience),
        algorithms=settings.oidc_algorithms,
        rules=settings.claim_rules,
        skew_s=settings.oidc_clock_skew_s,
    )
    if not settings.oidc_client_id:
        return tokens, None
    login = Login(
        issuer,
        tokens,
        client_id=settings.oidc_client_id,
        client_secret=_text(settings.oidc_client_secret),
        scopes=settings.oidc_login_scopes,
    )
    return tokens, login


def _text(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
