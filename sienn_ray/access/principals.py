"""A caller of the API, with its scopes and its owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sienn_ray.access.claims import NO_LIMITS, ClaimLimits
from sienn_ray.errors import ForbiddenError

# Whose things are those of a service without authentication, and of one from before there was any.
ADMIN_OWNER = "admin"


class Scope(StrEnum):
    """Purposes that a key may be used for."""

    READ = "read"
    TRAIN = "train"
    INFER = "infer"
    EXPORT = "export"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


class Credential(StrEnum):
    """Kinds of proof that a caller comes with."""

    NONE = "none"
    API_KEY = "api_key"
    ACCESS_TOKEN = "access_token"  # nosec B105 # a kind, no secret
    OIDC_TOKEN = "oidc_token"  # nosec B105 # a kind, no secret
    SESSION = "session"


def narrowed(held: frozenset[Scope], wanted: frozenset[Scope]) -> frozenset[Scope]:
    """Return those of the wanted scopes that who holds some may do; an admin may do everything.

    Example:
        >>> sorted(narrowed(frozenset({Scope.READ}), frozenset({Scope.READ, Scope.TRAIN})))
        [<Scope.READ: 'read'>]
    """
    return wanted if Scope.ADMIN in held else wanted & held


@dataclass(frozen=True)
class Principal:
    """The caller of a request.

    Args:
        owner: Whose datasets, jobs and exports it sees, and in whose name new ones come to be.
        scopes: What it may do; `admin` is everything.
        key_id: The API key that it came with, if it did.
        rate_limits: Limits of that key, as `100/minute;1000/hour`, where it has its own.
        credential: The kind of proof that it came with.
        name: What the key is called.
        answer_limits: Limits of that key on answers of models.
    """

    owner: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    rate_limits: str | None = None
    credential: Credential = Credential.NONE
    name: str | None = None
    answer_limits: ClaimLimits = NO_LIMITS

    @property
    def is_admin(self) -> bool:
        """Return whether it sees what everybody owns."""
        return Scope.ADMIN in self.scopes

    def owner_asked_for(self, owner: str | None) -> str:
        """Return the owner that a request is about: by default the caller's own.

        Raises:
            ForbiddenError: It is another one, and the caller is no admin.
        """
        if owner is None or owner == self.owner:
            return self.owner
        if not self.is_admin:
            raise ForbiddenError("other owners are for admins to see; leave `owner` out for your own")
        return owner

    def check(self, *scopes: Scope) -> None:
        """Let through who has one of these scopes.

        Raises:
            ForbiddenError: It has none of them.
        """
        if not self.is_admin and self.scopes.isdisjoint(scopes):
            needed = " or ".join(f"'{scope}'" for scope in scopes)
            has = ", ".join(sorted(self.scopes)) or "none"
            raise ForbiddenError(f"this needs the scope {needed}, and what was sent has: {has}")


# Of a service without authentication, where whoever reaches it may do everything.
EVERYBODY = Principal(ADMIN_OWNER, ALL_SCOPES)
# Of a request without credentials, where some are asked for.
NOBODY = Principal("", frozenset())
