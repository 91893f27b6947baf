"""Tokens and sessions of every kind, right ones and wrong ones."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from joserfc.jwk import ECKey

from sienn_ray.access.principals import Scope
from sienn_ray.access.secret_texts import random_text, sha256_of
from sienn_ray.access.sessions import SessionRecord
from sienn_ray.access.token_claims import TokenClaims
from sienn_ray.jobs.schema import utc_now
from sienn_ray.settings import Settings
from tests.support.fake_issuer import FakeIssuer
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tokens import header_of, payload_of, signed_with_public_key, unsigned
from tests.unit.api.access.test_authentication import ADMIN_KEY, key_of

COOKIE = "__Host-sienn_session"
EVIL = "https://evil.example"


class Credentials:
    """Tokens and sessions of any kind for one service."""

    def __init__(self, tracker: InProcessTracker, settings: Settings, issuer: FakeIssuer) -> None:
        self.tracker = tracker
        self.settings = settings
        self.issuer = issuer

    def token(self, owner: str, *scopes: Scope, wanted: frozenset[Scope] | None = None, **changes: Any) -> str:
        """Return a token for a new key; `changes` are those of its claims, or of its key with `key_` before."""
        fields = {name.removeprefix("key_"): changes.pop(name) for name in list(changes) if name.startswith("key_")}
        return self.token_of(key_of(self.tracker, owner, *scopes, **fields), wanted or frozenset(scopes), **changes)

    def token_of(self, key: str, scopes: frozenset[Scope], **changes: Any) -> str:
        """Return a token for a key."""
        now = int(time.time())
        prefix = "SIENN_ADMIN_KEY" if key == ADMIN_KEY else key.split("_")[1]
        values = {"issuer": self.settings.token_issuer, "client_id": prefix, "scopes": scopes, **changes}
        claims = TokenClaims(**{"issued_at": now, "expires_at": now + 600, "token_id": uuid.uuid4().hex, **values})
        return self.tracker.actor.sign_token(claims)

    def session(self, owner: str, *scopes: Scope, key: str | None = None, **changes: Any) -> str:
        """Return the cookie of a session, of a new key if none is given; `changes` are those of its record."""
        secret, now = random_text(), utc_now()
        values = {"created_at": now, "seen_at": now, "expires_at": now + timedelta(hours=1), **changes}
        if "client_id" not in values:
            values["client_id"] = (key or key_of(self.tracker, owner, *scopes)).split("_")[1]
        record = SessionRecord(sha256=sha256_of(secret), owner=owner, scopes=frozenset(scopes), **values)
        self.tracker.actor.add_session(record)
        return f"{COOKIE}={secret}"

    def invalid_tokens(self) -> dict[str, tuple[str, str]]:
        """Return tokens that must be refused, whatever they say that they may, each with the reason that is given."""
        everything = tuple(Scope)
        good = self.token("ada", *everything)
        header, claims = header_of(good), payload_of(good)
        (public,) = (ECKey.import_key(dict(key.as_jwk())) for key in self.tracker.actor.token_keys())
        foreign = ECKey.generate_key("P-256", {"kid": header["kid"]})
        theirs, now = self.issuer, int(time.time())
        return {
            "expired": (self.token("ada", *everything, expires_at=now - 10), "has expired at"),
            "made for too long": (self.token("ada", *everything, expires_at=now + 3601), "is for 3601 s"),
            "made for ever": (self.token("ada", *everything, expires_at=now + 10**9), "3600 s at the most"),
            "no beginning": (self.other({**claims, "iat": None}, header), "no 'iat'"),
            "wrong audience": (self.other({**claims, "aud": EVIL}, header), f"meant for '{EVIL}'"),
            "another kind": (self.other(claims, {**header, "typ": "JWT"}), "of another kind than 'at\\+jwt'"),
            "no kind": (self.other(claims, {**header, "typ": None}), "of another kind"),
            "none": (unsigned({**header, "alg": "none"}, claims), "isn't signed with ES256"),
            "NonE": (unsigned({**header, "alg": "NonE"}, claims), "isn't signed with ES256"),
            "no algorithm": (unsigned({"kid": header["kid"], "typ": "at+jwt"}, claims), "names no algorithm"),
            "HS256 with the public key": (signed_with_public_key(public, header, claims), "isn't signed with ES256"),
            "another key under this id": (theirs.token(header, foreign, **claims), "signature isn't right"),
            "unknown key": (theirs.token({**header, "kid": "unknown"}, foreign, **claims), "key that isn't known"),
            "altered": (good[:-6] + ("A" if good[-6] != "A" else "B") + good[-5:], "signature isn't right"),
            "another issuer": (self.token("ada", *everything, issuer=EVIL), "an issuer that isn't known here"),
            "of a revoked key": (self.token("ada", *everything, key_revoked_at=utc_now()), "has been revoked"),
            "of an expired key": (self.token("ada", *everything, key_expires_at=utc_now()), "'a key' has expired"),
            "of no key": (self.token("ada", *everything, client_id="none"), "isn't there any more"),
            "OIDC: expired": (theirs.token(exp=now - 120), "has expired at"),
            "OIDC: not yet valid": (theirs.token(nbf=now + 1800), r"isn't valid before .* \('nbf'\)"),
            "OIDC: from the future": (theirs.token(iat=now + 1800), r"isn't valid before .* \('iat'\)"),
            "OIDC: wrong audience": (theirs.token(aud=EVIL), f"meant for '{EVIL}'"),
            "OIDC: no audience": (theirs.token(aud=None), "meant for nobody"),
            "OIDC: no end": (theirs.token(exp=None), "no 'exp'"),
            "OIDC: no subject": (theirs.token(sub=None), "no 'sub'"),
            "OIDC: none": (unsigned({"alg": "none", "kid": "key-1"}, theirs.claims()), "an algorithm that isn't taken"),
            "OIDC: HS256 with the public key": (
                signed_with_public_key(theirs.keys["key-1"], {"kid": "key-1"}, theirs.claims()),
                "an algorithm that isn't taken",
            ),
            "OIDC: another key under this id": (theirs.token({"kid": "key-1"}, foreign), "signature isn't right"),
            "OIDC: our key": (self.other(theirs.claims(), {"kid": "key-1"}), "signature isn't right"),
            "OIDC: unknown key": (theirs.token({"kid": "unknown"}), "a key that its issuer doesn't have"),
            "OIDC: no key id": (theirs.token({"kid": None}), "no 'kid'"),
            "OIDC: its own key set": (theirs.token({"jku": f"{EVIL}/keys"}), "'jku', which isn't taken"),
            "OIDC: its own key": (theirs.token({"jwk": foreign.as_dict(private=False)}, foreign), "'jwk', which"),
            "OIDC: its own certificate": (theirs.token({"x5u": f"{EVIL}/cert"}), "'x5u', which isn't taken"),
            "OIDC: crit": (unsigned({"alg": "ES256", "kid": "key-1", "crit": ["exp"]}, theirs.claims()), "'crit'"),
        }

    def other(self, claims: dict[str, Any], header: dict[str, Any]) -> str:
        """Return a token by this service's own key with other words than it would sign."""
        store = self.tracker.actor._store.token_keys
        with store._database.reading() as connection:
            _, key = store._usable(connection)
        return self.issuer.token(header, key, **{"sub": None, "scope": None, **claims})
