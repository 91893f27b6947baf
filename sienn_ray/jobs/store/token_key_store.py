"""Keys that access tokens are signed with, in the job database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from joserfc.jwk import ECKey

from sienn_ray.access.token_claims import TokenClaims
from sienn_ray.access.token_keys import PublicTokenKey, TokenKeyRecord, new_key, opened, signed
from sienn_ray.access.token_lifetimes import LONGEST_TOKEN_LIFETIME_S
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import token_keys

logger = logging.getLogger(__name__)

# A retired key stays for as long as any token may live that it has signed, whatever the settings were.
_RETIREMENT = timedelta(seconds=LONGEST_TOKEN_LIFETIME_S)


class TokenKeyStore:
    """Makes, uses and retires keys; every method is one transaction.

    Args:
        database: Where they are kept. Who reads it and isn't kept out by a secret can sign tokens.
        secret: Encrypts their private halves, if there is one.
        lifetime_s: Age at which a key gets a successor.
        clock: The time.
    """

    def __init__(
        self,
        database: Database,
        secret: str | None = None,
        lifetime_s: float = float("inf"),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._secret = secret
        self._lifetime_s = lifetime_s
        self._clock = clock

    def public_keys(self) -> list[PublicTokenKey]:
        """Return all that valid tokens may be signed with, the newest first; none before the first token."""
        query = (
            sa.select(*(column for column in token_keys.c if column.name != "private_jwk"))
            .where(token_keys.c.retired_at.is_(None) | (token_keys.c.retired_at > self._clock() - _RETIREMENT))
            .order_by(token_keys.c.retired_at.is_(None).desc(), token_keys.c.created_at.desc())
        )
        with self._database.reading() as connection:
            return [PublicTokenKey.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def sign(self, claims: TokenClaims) -> str:
        """Return a token, signed with the newest key; that is made here where there is none, or the last is too old."""
        with self._database.reading() as connection:
            record, key = self._usable(connection)
        if record is None or key is None:
            with self._database.writing() as connection:
                record, key = self._usable(connection)  # another thread may have been quicker
                if record is None or key is None:
                    record, key = self._replace(connection)
        return signed(claims, record.kid, key)

    def rotate(self) -> PublicTokenKey:
        """Make a new key, which signs from now on; tokens by the ones before stay valid until they expire."""
        with self._database.writing() as connection:
            return self._replace(connection)[0].public

    def _usable(self, connection: sa.Connection) -> tuple[TokenKeyRecord | None, ECKey | None]:
        query = sa.select(token_keys).where(token_keys.c.retired_at.is_(None)).order_by(token_keys.c.created_at.desc())
        row = connection.execute(query).mappings().first()
        if row is None:
            return None, None
        record = TokenKeyRecord.model_validate(dict(row))
        if (self._clock() - record.created_at).total_seconds() >= self._lifetime_s:
            return None, None
        key = opened(record, self._secret)
        if key is None:
            logger.warning("the key %s isn't kept under SIENN_TOKEN_KEY_SECRET; a new one takes over", record.kid)
        return record, key

    def _replace(self, connection: sa.Connection) -> tuple[TokenKeyRecord, ECKey]:
        now = self._clock()
        connection.execute(sa.delete(token_keys).where(token_keys.c.retired_at <= now - _RETIREMENT))
        is_in_use = token_keys.c.retired_at.is_(None)
        connection.execute(sa.update(token_keys).where(is_in_use).values(retired_at=now))
        # Nobody signs with these any more, so their private halves can only be stolen.
        connection.execute(sa.update(token_keys).values(private_jwk=""))
        record = new_key(now, self._secret)
        connection.execute(sa.insert(token_keys).values(**record.model_dump()))
        key = opened(record, self._secret)
        if key is None:
            raise ValueError("a key that was just made can't be read")
        logger.info("access tokens are signed with the key %s from now on", record.kid)
        return record, key
