"""API keys: `sienn_<prefix>_<secret>`. The prefix finds a key, the secret is known to its holder alone."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from sienn_ray.access.claims import ClaimLimits
from sienn_ray.access.principals import Credential, Principal, Scope
from sienn_ray.access.secret_texts import SECRET_CHARS, random_text, sha256_of

_PREFIX_CHARS = 12  # 71 bits
_FORM = re.compile(rf"sienn_([A-Za-z0-9]{{{_PREFIX_CHARS}}})_([A-Za-z0-9]{{{SECRET_CHARS}}})")


@dataclass(frozen=True, repr=False)
class ApiKey:
    """An API key with its secret, as its holder has it.

    Args:
        prefix: Finds the key; no secret.
        secret: What proves that it is the holder's.
    """

    prefix: str
    secret: str

    @classmethod
    def random(cls) -> ApiKey:
        """Make a new key."""
        return cls(random_text(_PREFIX_CHARS), random_text())

    @classmethod
    def parsed(cls, text: str) -> ApiKey | None:
        """Return the key that a text is, or None if it is none."""
        match = _FORM.fullmatch(text)
        return cls(match[1], match[2]) if match else None

    @property
    def text(self) -> str:
        """The key as it is sent, secret included."""
        return f"sienn_{self.prefix}_{self.secret}"

    @property
    def sha256(self) -> str:
        """The hash under which the secret is kept."""
        return sha256_of(self.secret)

    def __repr__(self) -> str:
        return f"ApiKey({self.prefix!r})"


class ApiKeyRecord(BaseModel):
    """An API key as it is kept: without its secret."""

    model_config = ConfigDict(frozen=True)

    id: str
    prefix: str
    sha256: str
    name: str
    owner: str
    scopes: frozenset[Scope]
    # As `100/minute;1000/hour`, where they aren't those of all.
    rate_limits: str | None = None
    # Of answers of models: tokens in a minute, and requests at once.
    tokens_per_minute: int | None = None
    max_open_answers: int | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def principal(self) -> Principal:
        """The caller who sends this key."""
        limits = ClaimLimits(max_open=self.max_open_answers, tokens_per_minute=self.tokens_per_minute)
        return Principal(
            self.owner, self.scopes, self.id, self.rate_limits, Credential.API_KEY, self.name, answer_limits=limits
        )

    def is_of(self, key: ApiKey) -> bool:
        """Return whether this is the record of a key, in the same time whether it is or not."""
        return hmac.compare_digest(self.sha256, key.sha256)

    def fault_at(self, moment: datetime) -> str | None:
        """Say why the key isn't valid at a moment, or None if it is."""
        if self.revoked_at is not None:
            return f"has been revoked at {_shown(self.revoked_at)}"
        if self.expires_at is not None and self.expires_at <= moment:
            return f"has expired at {_shown(self.expires_at)}"
        return None


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
