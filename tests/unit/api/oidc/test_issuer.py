"""An outside issuer: what it says of itself is asked for within bounds, and taken for no more than it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import ECKey

from sienn_ray.access.claim_rules import ClaimRules, parsed_scopes
from sienn_ray.access.principals import Credential, Scope
from sienn_ray.api.oidc import fetches as fetches_module
from sienn_ray.api.oidc.fetches import Fetches
from sienn_ray.api.oidc.issuer import LIFETIME_S, REFETCH_S, Issuer
from sienn_ray.api.oidc.tokens import OidcTokens
from sienn_ray.errors import InvalidTokenError, IssuerError
from tests.support.fake_issuer import AUDIENCE, FakeIssuer, fake_issuer, rsa_key

KEYS, DISCOVERY = "/keys", "/.well-known/openid-configuration"


@pytest.fixture
def fake() -> Iterator[FakeIssuer]:
    with fake_issuer() as issuer:
        yield issuer


class Clock:
    """Seconds that go by when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tokens_of(fake: FakeIssuer, since: Clock, **changes: Any) -> OidcTokens:
    values = {
        "audiences": frozenset({AUDIENCE}),
        "algorithms": ("ES256", "RS256"),
        "rules": ClaimRules(),
        "skew_s": 60.0,
        **changes,
    }
    return OidcTokens(Issuer(fake.url, Fetches(), since), **values)


def ask(tokens: OidcTokens, *texts: str) -> Any:
    async def each() -> Any:
        for text in texts[:-1]:
            await tokens.principal_of(text)
        return await tokens.principal_of(texts[-1])

    return asyncio.run(each())


def is_refused(tokens: OidcTokens, text: str, words: str) -> None:
    with pytest.raises(InvalidTokenError, match=words):
        ask(tokens, text)


def test_a_caller_is_an_issuer_and_a_subject(fake: FakeIssuer, clock: Clock) -> None:
    principal = ask(tokens_of(fake, clock), fake.token(scope="openid read infer", aud=[AUDIENCE, "other"]))
    assert principal.owner == f"{fake.url}|ada"
    assert principal.scopes == {Scope.READ, Scope.INFER}
    assert (principal.credential, principal.key_id) == (Credential.OIDC_TOKEN, None)


def test_documents_are_asked_for_once(fake: FakeIssuer, clock: Clock) -> None:
    tokens = tokens_of(fake, clock)
    ask(tokens, *(fake.token(jti=str(number)) for number in range(5)))
    assert dict(fake.num_requests) == {DISCOVERY: 1, KEYS: 1}
    clock.now += LIFETIME_S
    ask(tokens, fake.token(jti="later"))
    assert dict(fake.num_requests) == {DISCOVERY: 2, KEYS: 2}


def test_many_at_once_ask_once(fake: FakeIssuer, clock: Clock) -> None:
    tokens = tokens_of(fake, clock)

    async def together() -> None:
        await asyncio.gather(*(tokens.principal_of(fake.token(jti=str(number))) for number in range(20)))

    asyncio.run(together())
    assert dict(fake.num_requests) == {DISCOVERY: 1, KEYS: 1}


def test_a_new_key_is_found_and_an_unknown_one_costs_no_more_than_that(fake: FakeIssuer, clock: Clock) -> None:
    tokens = tokens_of(fake, clock)
    ask(tokens, fake.token())
    fake.rotate("key-2", keeps=True)
    is_refused(tokens, fake.token(), "a key that its issuer doesn't have")  # asked a moment ago
    clock.now += REFETCH_S
    ask(tokens, fake.token())
    for number in range(20):
        is_refused(tokens, fake.token({"kid": f"unknown-{number}"}), "a key that its issuer doesn't have")
    assert fake.num_requests[KEYS] == 2
    clock.now += REFETCH_S
    is_refused(tokens, fake.token({"kid": "unknown"}), "a key that its issuer doesn't have")
    assert fake.num_requests[KEYS] == 3


def test_a_key_that_is_taken_back_ends_its_tokens(fake: FakeIssuer, clock: Clock) -> None:
    wall = [time.time()]
    tokens = tokens_of(fake, clock, clock=lambda: wall[0])
    old = fake.token(exp=int(wall[0]) + 86400)
    ask(tokens, old)
    fake.rotate("key-2")
    clock.now += REFETCH_S
    ask(tokens, fake.token(exp=int(wall[0]) + 86400), old)  # remembered for minutes
    wall[0] += 301
    is_refused(tokens, old, "a key that its issuer doesn't have")


def test_a_remembered_token_ends_when_it_expires(fake: FakeIssuer, clock: Clock) -> None:
    wall = [time.time()]
    tokens = tokens_of(fake, clock, clock=lambda: wall[0], skew_s=10.0)
    token = fake.token(exp=int(wall[0]) + 60)
    ask(tokens, token)
    wall[0] += 71
    is_refused(tokens, token, "has expired")


class TestAway:
    def test_an_issuer_that_is_away_is_said_so_and_not_asked_all_the_time(self, fake: FakeIssuer, clock: Clock) -> None:
        fake.answers = {DISCOVERY: 500}
        tokens = tokens_of(fake, clock)
        for _ in range(5):
            with pytest.raises(IssuerError, match="it answers 500; try again in a while") as refused:
                ask(tokens, fake.token())
            assert refused.value.retry_after_s == 30
        assert fake.num_requests[DISCOVERY] == 1
        fake.answers, clock.now = {}, REFETCH_S
        assert ask(tokens, fake.token()).owner

    def test_keys_that_are_known_are_taken_meanwhile(self, fake: FakeIssuer, clock: Clock) -> None:
        tokens = tokens_of(fake, clock)
        ask(tokens, fake.token())
        fake.answers, clock.now = {DISCOVERY: 503, KEYS: 503}, LIFETIME_S
        assert ask(tokens, fake.token(jti="later")).owner
        with pytest.raises(IssuerError):
            ask(tokens, fake.token({"kid": "unknown"}))

    def test_nobody_there(self, clock: Clock) -> None:
        with fake_issuer() as gone:
            token = gone.token()
        with pytest.raises(IssuerError, match="can't be reached at the moment"):
            ask(tokens_of(gone, clock), token)

    def test_one_that_does_not_answer_in_time(
        self, fake: FakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetches_module, "TIMEOUT_S", 0.0)
        with pytest.raises(IssuerError, match=r"can't be reached at the moment \(TimeoutError\)"):
            ask(tokens_of(fake, clock), fake.token())


class TestDocuments:
    @pytest.mark.parametrize(
        ("discovery", "words"),
        [
            ({"issuer": "https://other.example"}, "calls itself by another name"),
            ({"jwks_uri": None}, "a URL in its documents is none"),
            ({"jwks_uri": "http://id.example.org/keys"}, "has no TLS"),
            ({"jwks_uri": "file:///etc/passwd"}, "is none"),
            ({"jwks_uri": "https://[broken"}, "is none"),
            ({"jwks_uri": ["https://a.example"]}, "is none"),
            ({"token_endpoint": "http://id.example.org/token"}, "has no TLS"),
            ({"authorization_endpoint": "javascript:alert(1)"}, "is none"),
        ],
    )
    def test_discovery_that_is_not_taken(
        self, fake: FakeIssuer, clock: Clock, discovery: dict[str, Any], words: str
    ) -> None:
        fake.discovery = discovery
        with pytest.raises(IssuerError, match=words):
            ask(tokens_of(fake, clock), fake.token())

    def test_redirects_are_not_followed(self, fake: FakeIssuer, clock: Clock) -> None:
        fake.discovery = {"jwks_uri": f"{fake.url}/redirect"}
        with pytest.raises(IssuerError, match="it answers 302"):
            ask(tokens_of(fake, clock), fake.token())
        assert fake.num_requests[KEYS] == 0

    @pytest.mark.parametrize(
        ("jwks", "words"),
        [
            (b"no JSON", "with something else than JSON"),
            (b"[" * 100_000, "with something else than JSON"),
            ([1], "is no JSON object"),
            ({"no": "keys"}, "no list of keys"),
            ({"keys": "key"}, "no list of keys"),
            (b" " * (fetches_module.MAX_BYTES + 1), "has more than 524288 bytes"),
        ],
    )
    def test_keys_that_are_none(self, fake: FakeIssuer, clock: Clock, jwks: Any, words: str) -> None:
        fake.jwks = jwks
        with pytest.raises(IssuerError, match=words):
            ask(tokens_of(fake, clock), fake.token())

    def test_what_can_not_be_a_key_is_left_out(self, fake: FakeIssuer, clock: Clock) -> None:
        (good,) = (key.as_dict(private=False) for key in fake.keys.values())
        weak = rsa_key("weak", 1024)
        secret = {"kty": "oct", "kid": "secret", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
        encrypts = {**good, "kid": "encrypts", "use": "enc"}
        broken = [1, {}, {"kid": "a"}, {**good, "kid": 1}, {**good, "kid": "b", "x": "!"}, {"kty": "X", "kid": "c"}]
        fake.jwks = {"keys": [*broken, secret, encrypts, weak.as_dict(private=False), good]}
        tokens = tokens_of(fake, clock)
        ask(tokens, fake.token())
        for kid in ("secret", "encrypts", "b", "c"):
            is_refused(tokens, fake.token({"kid": kid}), "a key that its issuer doesn't have")
        is_refused(tokens, fake.token({"alg": "RS256", "kid": "weak"}, weak), "a key that its issuer doesn't have")

    def test_a_key_is_for_the_algorithm_that_it_says(self, fake: FakeIssuer, clock: Clock) -> None:
        key = rsa_key()
        fake.jwks = {"keys": [{**key.as_dict(private=False), "alg": "RS512"}]}
        is_refused(tokens_of(fake, clock), fake.token({"alg": "RS256", "kid": "rsa-1"}, key), "only nothing is taken")
        fake.jwks = {"keys": [key.as_dict(private=False)]}
        assert ask(tokens_of(fake, clock), fake.token({"alg": "RS256", "kid": "rsa-1"}, key)).owner
        is_refused(tokens_of(fake, clock), fake.token({"alg": "PS256", "kid": "rsa-1"}, key), "ES256, RS256 are")


@pytest.mark.parametrize(
    ("header", "claims", "words"),
    [
        ({"typ": "logout+jwt"}, {}, "a kind that is for other purposes"),
        ({"typ": "dpop+jwt"}, {}, "a kind that is for other purposes"),
        ({"alg": "ES384"}, {}, "an algorithm that isn't taken"),
        ({}, {"cnf": {"jkt": "a"}}, "bound to a key of its holder's"),
        ({}, {"sub": "x" * 300}, "at most 255 are kept"),
        ({}, {"sub": "a\nb"}, "some that can't be shown"),
        ({}, {"iss": "https://other.example"}, "by the issuer"),
    ],
)
def test_tokens_that_are_not_taken(
    fake: FakeIssuer, clock: Clock, header: dict[str, Any], claims: dict[str, Any], words: str
) -> None:
    if header.get("alg") == "ES384":
        is_refused(tokens_of(fake, clock), fake.token(header, ECKey.generate_key("P-384")), words)
    else:
        is_refused(tokens_of(fake, clock), fake.token(header, **claims), words)


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "application/at+JWT", None])
def test_kinds_that_are_taken(fake: FakeIssuer, clock: Clock, kind: str | None) -> None:
    assert ask(tokens_of(fake, clock), fake.token({"typ": kind})).owner


RULES: dict[str, tuple[ClaimRules, dict[str, Any], set[str]]] = {
    "by name": (ClaimRules(), {"scope": "read train other admin"}, {"read", "train"}),
    "a list": (ClaimRules(scope_claim="scp"), {"scp": ["read", 1, None]}, {"read"}),
    "within others": (ClaimRules(scope_claim="realm.roles"), {"realm": {"roles": ["infer"]}}, {"infer"}),
    "dots in the name": (ClaimRules(scope_claim="https://a.b/s"), {"https://a.b/s": "export"}, {"export"}),
    "nothing there": (ClaimRules(scope_claim="a.b.c"), {"a": {"b": 1}, "scope": "read"}, set()),
    "by value": (
        ClaimRules(scopes=parsed_scopes(("ml team=train", "ml team=read", "a=b=infer"))),
        {"groups": ["ml team", "a=b"], "scope": "export"},
        {"train", "read", "infer"},
    ),
    "a part of a group is none": (ClaimRules(admin_group="Admins"), {"groups": "Contractor Admins"}, set()),
    "a part of a group is no scope": (ClaimRules(), {"groups": "train read"}, set()),
    "one group": (ClaimRules(admin_group="ML Admins"), {"groups": "ML Admins"}, {"admin"}),
    "a scope is no admin group": (ClaimRules(admin_group="ops"), {"scope": "ops read"}, {"read"}),
    "an admin": (ClaimRules(admin_group="ops"), {"groups": ["ops"]}, {"admin"}),
    "no admin by name": (ClaimRules(), {"groups": ["admin"], "scope": "admin"}, set()),
    "an admin by a rule": (ClaimRules(scopes=parsed_scopes(("root=admin",))), {"scope": "root"}, {"admin"}),
    "no group is no admin": (ClaimRules(admin_group=""), {"groups": [""]}, set()),
    "by default": (ClaimRules(default_scopes=frozenset({Scope.READ})), {"scope": "infer"}, {"read", "infer"}),
}


@pytest.mark.parametrize("name", RULES)
def test_claims_become_scopes_by_rules(name: str) -> None:
    rules, claims, scopes = RULES[name]
    principal = rules.principal_of("https://id.example.org", {"sub": "ada", **claims}, Credential.OIDC_TOKEN)
    assert principal.scopes == scopes
