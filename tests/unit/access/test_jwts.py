"""Signed tokens: what is looked at before a signature, and what after it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from sienn_ray.access.jwts import (
    ASYMMETRIC_ALGORITHMS,
    MAX_TOKEN_CHARS,
    ClaimChecks,
    claimed_issuer,
    header_of,
    looks_like_jwt,
    verified_claims,
)
from sienn_ray.errors import InvalidTokenError
from tests.support.tokens import signed_with_public_key, unsigned

NOW = 1_700_000_000.0
HEADER = {"alg": "ES256", "kid": "key-1"}
CLAIMS: dict[str, Any] = {"iss": "https://id.example.org", "aud": "sienn", "sub": "ada", "exp": NOW + 60}
CHECKS = ClaimChecks("https://id.example.org", frozenset({"sienn"}), skew_s=30)


@pytest.fixture(scope="module")
def key() -> ECKey:
    return ECKey.generate_key("P-256")


def test_a_header_is_read() -> None:
    header = header_of(unsigned({**HEADER, "typ": "application/AT+JWT", "x5t": "a", "custom": [1]}, CLAIMS))
    assert (header.algorithm, header.key_id, header.kind) == ("ES256", "key-1", "at+jwt")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"kid": "a"}, "names no algorithm"),
        ({"alg": ["ES256"], "kid": "a"}, "names no algorithm"),
        ({"alg": None, "kid": "a"}, "names no algorithm"),
        ({"alg": "ES256"}, "no 'kid'"),
        ({"alg": "ES256", "kid": ""}, "no 'kid'"),
        ({"alg": "ES256", "kid": {"a": 1}}, "no 'kid'"),
        ({**HEADER, "typ": 1}, "'typ' that is no text"),
        ({**HEADER, "jku": "https://evil.example"}, "'jku', which isn't taken"),
        ({**HEADER, "jwk": {}}, "'jwk', which isn't taken"),
        ({**HEADER, "x5u": "https://evil.example"}, "'x5u', which isn't taken"),
        ({**HEADER, "crit": ["b64"], "b64": False}, "'crit', which isn't taken"),
    ],
)
def test_a_header_that_is_not_taken(header: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidTokenError, match=words):
        header_of(unsigned(header, CLAIMS))


@pytest.mark.parametrize(
    ("text", "is_shaped"),
    [
        ("..", False),
        ("a.b.c", True),
        ("!.e30.", False),
        ("e30.W10.", True),
        ("W10.e30.", True),
        ("e30.e30", False),
        ("e30.e30.e30.e30", False),
        ("e30.\u00e9.x", False),
    ],
)
def test_what_is_no_token(text: str, is_shaped: bool) -> None:
    assert looks_like_jwt(text) is is_shaped
    with pytest.raises(InvalidTokenError, match=r"isn't well-formed|names no algorithm"):
        header_of(text)
    if text != "W10.e30.":  # whose claims are fine
        with pytest.raises(InvalidTokenError, match="isn't well-formed"):
            claimed_issuer(text)


def test_a_token_without_an_end_of_its_text_is_not_read() -> None:
    with pytest.raises(InvalidTokenError, match=f"has {MAX_TOKEN_CHARS + 1} characters"):
        header_of("e" * (MAX_TOKEN_CHARS - 3) + ".e.e")


def test_a_deeply_nested_token_is_refused_as_any_other() -> None:
    nested = f'{{"a": {"[" * 2500}'
    text = unsigned(HEADER, CLAIMS).split(".")
    text[0] = base64.urlsafe_b64encode(nested.encode()).rstrip(b"=").decode()
    with pytest.raises(InvalidTokenError, match="isn't well-formed"):
        header_of(".".join(text))


def test_only_the_named_algorithms_of_the_right_key_are_taken(key: ECKey) -> None:
    text = jwt.encode(HEADER, CLAIMS, key, algorithms=["ES256"])
    assert verified_claims(text, key, ("ES256",)) == CLAIMS
    with pytest.raises(InvalidTokenError, match="is signed with 'ES256', and only RS256 is taken"):
        verified_claims(text, key, ("RS256",))
    for other in (ECKey.generate_key("P-256"), ECKey.generate_key("P-384"), RSAKey.generate_key(2048)):
        with pytest.raises(InvalidTokenError, match="signature isn't right"):
            verified_claims(text, other, ("ES256",))


@pytest.mark.parametrize("forged", ["HS256", "none"])
def test_no_secret_and_no_signature_is_ever_enough(key: ECKey, forged: str) -> None:
    text = (
        signed_with_public_key(key, HEADER, CLAIMS)
        if forged == "HS256"
        else unsigned({**HEADER, "alg": forged}, CLAIMS)
    )
    assert forged not in ASYMMETRIC_ALGORITHMS
    # Not even where somebody names it.
    for algorithms in (ASYMMETRIC_ALGORITHMS, (forged,), ("ES256", forged)):
        with pytest.raises(InvalidTokenError, match=f"is signed with '{forged}'"):
            verified_claims(text, key, algorithms)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("algorithm", ASYMMETRIC_ALGORITHMS)
def test_every_algorithm_that_may_be_chosen_works(algorithm: str) -> None:
    kinds: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}
    size = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}.get(algorithm, 2048)
    key = kinds[algorithm[:2]].generate_key("Ed25519" if algorithm[:2] == "Ed" else size)
    text = jwt.encode({**HEADER, "alg": algorithm}, CLAIMS, key, algorithms=[algorithm])
    assert verified_claims(text, key, (algorithm,)) == CLAIMS


def test_claims_that_are_right() -> None:
    assert CHECKS.check(CLAIMS, NOW) == NOW + 60
    assert CHECKS.check({**CLAIMS, "aud": ["other", "sienn"], "nbf": NOW + 29, "iat": NOW}, NOW) == NOW + 60
    assert CHECKS.check({**CLAIMS, "exp": NOW - 29.5}, NOW) == NOW - 29.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://id.example.org/"}, "by the issuer 'https://id.example.org/', and not"),
        ({"iss": None}, "by the issuer None"),
        ({"iss": ["https://id.example.org"]}, "by the issuer"),
        ({"aud": "other\r\nSet-Cookie: a"}, r"meant for 'other\\r\\nSet-Cookie: a', and not for 'sienn'"),
        ({"aud": "x" * 1000}, r"x{99}\.\.\., and not"),
        ({"aud": []}, "meant for nobody"),
        ({"aud": {"sienn": 1}}, "meant for nobody"),
        ({"sub": ""}, "has no 'sub'"),
        ({"sub": 1}, "has no 'sub'"),
        ({"exp": None}, "has no 'exp'"),
        ({"exp": "tomorrow"}, "'exp' is no moment"),
        ({"exp": True}, "'exp' is no moment"),
        ({"exp": float("inf")}, "'exp' is no moment"),
        ({"exp": float("nan")}, "'exp' is no moment"),
        ({"exp": 10**400}, "'exp' is no moment"),
        ({"exp": NOW - 30}, "has expired at 2023-11-14T22:12:50Z"),
        ({"nbf": NOW + 31}, "isn't valid before 2023-11-14T22:13:51Z"),
        ({"iat": NOW + 31}, "isn't valid before"),
        ({"nbf": []}, "'nbf' is no moment"),
    ],
)
def test_claims_that_are_not(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidTokenError, match=words):
        CHECKS.check({**CLAIMS, **changes}, NOW)
