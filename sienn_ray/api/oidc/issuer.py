"""An outside issuer: its discovery document and its keys, remembered, and asked for within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from sienn_ray.api.oidc.fetches import Fetches
from sienn_ray.errors import InvalidTokenError, IssuerError

logger = logging.getLogger(__name__)

# How long documents are taken for what they were, and a key that was taken back is still known.
LIFETIME_S = 600.0
# Between two tries for keys that aren't known, or that can't be had.
REFETCH_S = 30.0
_MAX_KEYS = 100
_MIN_RSA_BITS = 2048
_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class IssuerMetadata:
    """The metadata of an issuer (OpenID Connect Discovery 1.0).

    Args:
        jwks_uri: URL of its keys.
        authorization_endpoint: Where it asks browsers to log in.
        token_endpoint: Where it exchanges codes.
        end_session_endpoint: Where browsers log out, if anywhere.
        takes_basic: Whether clients may say who they are in the header `Authorization`.
    """

    jwks_uri: str
    authorization_endpoint: str | None
    token_endpoint: str | None
    end_session_endpoint: str | None
    takes_basic: bool


@dataclass(frozen=True)
class IssuerKey:
    """A public key of an issuer.

    Args:
        key: The key.
        algorithm: The only algorithm that it is for, if it says so.
    """

    key: Key
    algorithm: str | None


class Issuer:
    """An issuer of OpenID Connect.

    Args:
        url: Names it, and is where its discovery document begins.
        fetches: Fetches documents.
        clock: Seconds.
    """

    def __init__(self, url: str, fetches: Fetches, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.fetches = fetches
        self._clock = clock
        self._metadata: IssuerMetadata | None = None
        self._keys: dict[str, IssuerKey] = {}
        self._metadata_at = self._keys_at = self._tried_at = float("-inf")
        self._failure: IssuerError | None = None
        self._lock = asyncio.Lock()

    async def metadata(self) -> IssuerMetadata:
        """Return what the issuer says of itself.

        Raises:
            IssuerError: It can't be asked, and was never before.
        """
        if self._metadata is None or self._clock() >= self._metadata_at + LIFETIME_S:
            async with self._lock:
                await self._try_to_fetch()
        if self._metadata is None:
            raise self._new_failure()
        return self._metadata

    async def key(self, kid: str) -> IssuerKey:
        """Return a key by its id; keys are asked for again for one that isn't known, but seldom.

        Raises:
            InvalidTokenError: There is no such key.
            IssuerError: The issuer can't be asked, so that nobody knows.
        """
        if kid not in self._keys or self._clock() >= self._keys_at + LIFETIME_S:
            async with self._lock:
                if kid not in self._keys or self._clock() >= self._keys_at + LIFETIME_S:
                    await self._try_to_fetch()
        if kid in self._keys:  # of an issuer that is away for longer, too
            return self._keys[kid]
        if self._failure is not None:
            raise self._new_failure()
        raise InvalidTokenError("the token is signed with a key that its issuer doesn't have, or not any more")

    def _new_failure(self) -> IssuerError:
        """The last failure, as an error of its own: one that is raised again and again grows with each traceback."""
        failure = self._failure
        if failure is None:
            return IssuerError("the issuer of SIENN_OIDC_ISSUER is being asked; try again in a moment")
        return IssuerError(failure.message, failure.retry_after_s)

    async def _try_to_fetch(self) -> None:
        """Fetch what is too old, unless that was tried just before."""
        if self._clock() < self._tried_at + REFETCH_S:
            return
        self._tried_at = self._clock()
        try:
            if self._metadata is None or self._clock() >= self._metadata_at + LIFETIME_S:
                self._metadata = self._read_metadata(await self.fetches.get(self.url.rstrip("/") + _DISCOVERY))
                self._metadata_at = self._clock()
            self._keys = _read_keys(await self.fetches.get(self._metadata.jwks_uri))
            self._keys_at = self._clock()
            self._failure = None
        except IssuerError as error:
            self._failure = error

    def _read_metadata(self, document: dict[str, Any]) -> IssuerMetadata:
        if document.get("issuer") != self.url:
            raise IssuerError(
                "the issuer of SIENN_OIDC_ISSUER calls itself by another name; write it to the letter as its discovery "
                "document does"
            )

        def url(name: str) -> str | None:
            return None if document.get(name) is None else self.fetches.check(document[name])

        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return IssuerMetadata(
            jwks_uri=self.fetches.check(document.get("jwks_uri")),
            authorization_endpoint=url("authorization_endpoint"),
            token_endpoint=url("token_endpoint"),
            end_session_endpoint=url("end_session_endpoint"),
            takes_basic=isinstance(methods, list) and "client_secret_basic" in methods,
        )


def _read_keys(document: dict[str, Any]) -> dict[str, IssuerKey]:
    """Keys for signatures by their ids; what can't be one is left out."""
    found = document.get("keys")
    if not isinstance(found, list):
        raise IssuerError("the issuer of SIENN_OIDC_ISSUER has no list of keys where it says")
    keys = {}
    for jwk in found[:_MAX_KEYS]:
        if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or jwk.get("use", "sig") != "sig":
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                key = JWKRegistry.import_key(jwk)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            logger.info("a key of the issuer can't be read (%s)", type(error).__name__)
            continue
        # A secret that both sides know is no public key, whatever it is called.
        if isinstance(key, RSAKey) and key.raw_value.key_size < _MIN_RSA_BITS:
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            algorithm = jwk.get("alg")
            keys[jwk["kid"]] = IssuerKey(key, algorithm if isinstance(algorithm, str) else None)
    return keys
