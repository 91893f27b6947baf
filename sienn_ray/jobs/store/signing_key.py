"""The key that links to downloads are signed with: made once, and the same for all replicas of the ingress."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import signing_keys

_PURPOSE = "downloads"
# As long as the hash of the signatures (RFC 2104, section 3).
_KEY_BYTES = 32


def signing_key(database: Database) -> bytes:
    """The key; deleting its row makes all links invalid."""
    with database.writing() as connection:
        query = sa.select(signing_keys.c.value).where(signing_keys.c.purpose == _PURPOSE)
        value = connection.scalar(query)
        if value is None:
            value = secrets.token_hex(_KEY_BYTES)
            connection.execute(sa.insert(signing_keys).values(purpose=_PURPOSE, value=value))
    return bytes.fromhex(value)
