"""The caller that the claims of an outside issuer stand for, by the operator's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sienn_ray.access.jwts import Claims
from sienn_ray.access.owners import MAX_OWNER_CHARS, is_owner
from sienn_ray.access.principals import Credential, Principal, Scope
from sienn_ray.errors import InvalidTokenError

# An issuer's scope may have the name of ours by chance; an admin is made on purpose.
_BY_NAME = tuple((scope.value, scope) for scope in Scope if scope is not Scope.ADMIN)


@dataclass(frozen=True)
class ClaimRules:
    """Rules by which claims become scopes.

    Args:
        scope_claim: The claim that has scopes, as a text with blanks between or as a list; a dot leads inwards, as in
            `realm_access.roles`.
        groups_claim: The claim that has groups, as a list, or as a text that is the name of one, blanks included.
        scopes: Values of both, each with a scope of ours that it stands for; none takes values with the names of ours,
            but for `admin`.
        admin_group: The group that makes an admin; a scope of that name doesn't.
        default_scopes: Those of every caller of the issuer.
    """

    scope_claim: str = "scope"
    groups_claim: str = "groups"
    scopes: tuple[tuple[str, Scope], ...] = ()
    admin_group: str = ""
    default_scopes: frozenset[Scope] = frozenset()

    def principal_of(self, issuer: str, claims: Claims, credential: Credential) -> Principal:
        """Return the caller.

        Args:
            issuer: By whom the claims are.
            claims: Claims that were checked.
            credential: The kind of proof.

        Raises:
            InvalidTokenError: The subject's name is too long, or can't be shown.
        """
        owner = owner_at(issuer, claims["sub"])
        if not is_owner(owner):
            raise InvalidTokenError(
                f"issuer and 'sub' of the token have {len(owner)} characters, or some that can't be shown, or a blank "
                f"at the end; at most {MAX_OWNER_CHARS} are kept"
            )
        return Principal(owner, self._scopes_of(claims), credential=credential)

    def _scopes_of(self, claims: Claims) -> frozenset[Scope]:
        asked = _value(claims, self.scope_claim)
        groups = set(_texts(_value(claims, self.groups_claim)))
        # Only scopes are a list in a text (RFC 6749, section 3.3); the name of a group may have blanks.
        values = {*(asked.split() if isinstance(asked, str) else _texts(asked)), *groups}
        found = {scope for value, scope in self.scopes or _BY_NAME if value in values}
        if self.admin_group and self.admin_group in groups:
            found.add(Scope.ADMIN)
        return frozenset(found) | self.default_scopes


def owner_at(issuer: str, subject: str) -> str:
    """Return the owner that a subject of an issuer is here.

    Example:
        >>> owner_at("https://id.example.org", "ada")
        'https://id.example.org|ada'
    """
    return f"{issuer}|{subject}"


def parsed_scopes(texts: tuple[str, ...]) -> tuple[tuple[str, Scope], ...]:
    """Return values of an issuer's claims, each with the scope that it stands for.

    Raises:
        ValueError: One isn't of the form, or names no scope.

    Example:
        >>> parsed_scopes(("ml-team=train",))
        (('ml-team', <Scope.TRAIN: 'train'>),)
    """
    found = []
    for text in texts:
        value, equals, name = text.rpartition("=")
        if not equals or not value:
            raise ValueError(f"{text!r} isn't of the form 'value=scope'")
        found.append((value, named_scope(name)))
    return tuple(found)


def named_scope(name: str) -> Scope:
    """Return a scope by its name; raises `ValueError` with all names for one that there isn't."""
    try:
        return Scope(name)
    except ValueError:
        raise ValueError(f"{name!r} is no scope; there are {', '.join(Scope)}") from None


def _value(claims: Claims, path: str) -> object:
    """The value of a claim, which may be within others, or have dots in its own name."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _texts(value: object) -> list[str]:
    """The texts of a value that is one, or a list of some."""
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
