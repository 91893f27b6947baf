"""Keys of tokens, refresh tokens and sessions in the job database."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import ECKey

from sienn_ray.access.principals import Scope
from sienn_ray.access.refresh_tokens import REPEAT_S, RefreshFault, RefreshRequest, RefreshTokenRecord
from sienn_ray.access.sessions import SessionRecord
from sienn_ray.access.token_claims import TokenClaims
from sienn_ray.access.token_lifetimes import LONGEST_TOKEN_LIFETIME_S
from sienn_ray.errors import TokenRequestError
from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.token_key_store import TokenKeyStore
from tests.support.fakes_jobs import Clock
from tests.support.tokens import header_of
from tests.unit.jobs.store.test_api_key_store import key_record

CLAIMS = TokenClaims("https://sienn.example.org", "prefix", frozenset({Scope.READ}), 0, 600, "token-1")
SECRET, OTHER = "a secret of the operator's, 32 long", "another secret of the operator's now"


def private_parts(store: Store) -> list[str]:
    with store.database.reading() as connection:
        return list(connection.scalars(sa.select(tables.token_keys.c.private_jwk)))


class TestTokenKeys:
    def test_one_is_made_for_the_first_token(self, store: Store) -> None:
        assert store.token_keys.public_keys() == []
        token = store.token_keys.sign(CLAIMS)
        (key,) = store.token_keys.public_keys()
        assert header_of(token)["kid"] == key.kid
        public = ECKey.import_key(dict(key.as_jwk()))
        assert not public.is_private
        assert public.thumbprint() == key.kid
        assert jwt.decode(token, public, algorithms=["ES256"]).claims == CLAIMS.as_json()
        assert header_of(store.token_keys.sign(CLAIMS))["kid"] == key.kid

    def test_many_at_once_make_one(self, store: Store) -> None:
        store.database.prepare()
        with ThreadPoolExecutor(8) as pool:
            kids = {header_of(token)["kid"] for token in pool.map(store.token_keys.sign, [CLAIMS] * 16)}
        assert len(kids) == 1

    def test_an_old_one_stays_until_its_last_token_has_expired(self, store: Store, clock: Clock) -> None:
        store.token_keys.sign(CLAIMS)
        (old,) = store.token_keys.public_keys()
        clock.advance(5)
        new = store.token_keys.rotate()
        assert sorted(map(bool, private_parts(store))) == [False, True]  # nobody signs with a retired one
        assert [key.kid for key in store.token_keys.public_keys()] == [new.kid, old.kid]
        assert header_of(store.token_keys.sign(CLAIMS))["kid"] == new.kid
        clock.advance(LONGEST_TOKEN_LIFETIME_S - 1)
        assert len(store.token_keys.public_keys()) == 2
        clock.advance(1)
        assert [key.kid for key in store.token_keys.public_keys()] == [new.kid]
        store.token_keys.rotate()
        assert len(private_parts(store)) == 2  # its row is gone

    def test_one_that_is_old_enough_gets_a_successor(self, store: Store, clock: Clock) -> None:
        keys = TokenKeyStore(store.database, lifetime_s=3600, clock=clock)
        first = header_of(keys.sign(CLAIMS))["kid"]
        clock.advance(3599)
        assert header_of(keys.sign(CLAIMS))["kid"] == first
        clock.advance(1)
        assert header_of(keys.sign(CLAIMS))["kid"] != first
        assert first in {key.kid for key in keys.public_keys()}

    def test_with_a_secret_the_database_alone_is_not_enough(self, store: Store, clock: Clock) -> None:
        keys = TokenKeyStore(store.database, SECRET, clock=clock)
        kid = header_of(keys.sign(CLAIMS))["kid"]
        (stored,) = private_parts(store)
        assert stored.startswith("eyJ")
        assert len(stored.split(".")) == 5  # encrypted
        assert header_of(TokenKeyStore(store.database, SECRET, clock=clock).sign(CLAIMS))["kid"] == kid

    @pytest.mark.parametrize(("before", "after"), [(SECRET, OTHER), (SECRET, None), (None, SECRET)])
    def test_another_secret_takes_another_key(
        self, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, before: str | None, after: str | None
    ) -> None:
        first = header_of(TokenKeyStore(store.database, before, clock=clock).sign(CLAIMS))["kid"]
        later = TokenKeyStore(store.database, after, clock=clock)
        second = header_of(later.sign(CLAIMS))["kid"]
        assert first != second
        assert "isn't kept under SIENN_TOKEN_KEY_SECRET" in caplog.text
        # Not even a secret that is set later leaves a private half in the database.
        assert [each.startswith("{") for each in private_parts(store) if each] == [after is None]
        assert first in {key.kid for key in later.public_keys()}

    def test_nothing_private_is_shown_or_logged(
        self, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.INFO, logger="sqlalchemy.engine")  # with the values, if they are shown
        store.token_keys.sign(CLAIMS)
        secrets = {json.loads(each)["d"] for each in private_parts(store)}
        public = store.token_keys.rotate()
        secrets |= {json.loads(each)["d"] for each in private_parts(store) if each}
        shown = f"{public!r} {public.model_dump_json()} {store.token_keys.public_keys()!r} {caplog.text}"
        with store.database.reading() as connection:
            record, key = store.token_keys._usable(connection)
        shown += f"{record!r} {key!r}"
        assert len(secrets) == 2
        assert not any(secret in shown for secret in secrets)


@pytest.fixture
def client_id(store: Store, clock: Clock) -> str:
    return store.api_keys.add(key_record(clock)).prefix


def refresh_record(clock: Clock, client_id: str, sha256: str = "first", family: str = "family-1") -> RefreshTokenRecord:
    return RefreshTokenRecord(
        sha256=sha256,
        family=family,
        client_id=client_id,
        scopes=frozenset({Scope.READ, Scope.INFER}),
        created_at=clock(),
        expires_at=clock() + timedelta(days=1),
    )


def refuses(store: Store, request: RefreshRequest, fault: RefreshFault) -> None:
    """An exchange is refused with an error, which undoes all that belongs to it."""
    with pytest.raises(TokenRequestError, match=fault.value) as refused:
        store.refresh_tokens.exchange(request)
    assert refused.value.code == ("invalid_scope" if fault is RefreshFault.SCOPES else "invalid_grant")


class TestRefreshTokens:
    def test_a_family_goes_on_and_ends_together(self, store: Store, clock: Clock, client_id: str) -> None:
        first = refresh_record(clock, client_id)
        store.refresh_tokens.add(first)
        clock.advance(60)
        second = store.refresh_tokens.exchange(RefreshRequest("first", "second")).successor
        assert second == first.model_copy(update={"sha256": "second", "created_at": clock()})
        assert second.expires_at == first.expires_at  # no family lives for ever
        assert store.refresh_tokens.exchange(RefreshRequest("second", "third", client_id)).successor
        assert store.refresh_tokens.exchange(RefreshRequest("first", "x")).fault is RefreshFault.REUSED
        for name in ("third", "second"):
            refuses(store, RefreshRequest(name, "x"), RefreshFault.REVOKED)

    def test_one_whose_answer_was_lost_gets_another_successor(self, store: Store, clock: Clock, client_id: str) -> None:
        store.refresh_tokens.add(refresh_record(clock, client_id))
        clock.advance(60)
        for seconds, successor in ((0, "lost"), (1, "lost too"), (REPEAT_S - 1, "second")):
            clock.advance(seconds)
            found = store.refresh_tokens.exchange(RefreshRequest("first", successor)).successor
            assert found is not None
            assert (found.sha256, found.used_at, found.created_at) == (successor, None, clock())
        clock.advance(1)
        assert store.refresh_tokens.exchange(RefreshRequest("second", "third")).successor

    def test_one_that_was_lost_after_all_ends_its_kin(self, store: Store, clock: Clock, client_id: str) -> None:
        """Two have had answers: one of them is a thief."""
        store.refresh_tokens.add(refresh_record(clock, client_id))
        for successor in ("lost", "second"):
            clock.advance(1)
            assert store.refresh_tokens.exchange(RefreshRequest("first", successor)).successor
        assert store.refresh_tokens.exchange(RefreshRequest("lost", "x")).fault is RefreshFault.REUSED
        refuses(store, RefreshRequest("second", "x"), RefreshFault.REVOKED)

    @pytest.mark.parametrize(("successor_is_used", "seconds"), [(False, REPEAT_S + 1), (True, 1)])
    def test_one_that_comes_late_or_behind_its_successor_is_no_repeat(
        self, store: Store, clock: Clock, client_id: str, successor_is_used: bool, seconds: float
    ) -> None:
        store.refresh_tokens.add(refresh_record(clock, client_id))
        clock.advance(60)
        assert store.refresh_tokens.exchange(RefreshRequest("first", "second")).successor
        clock.advance(seconds)
        if successor_is_used:
            assert store.refresh_tokens.exchange(RefreshRequest("second", "third")).successor
        assert store.refresh_tokens.exchange(RefreshRequest("first", "x")).fault is RefreshFault.REUSED

    def test_a_repeat_is_looked_at_as_closely(self, store: Store, clock: Clock, client_id: str) -> None:
        store.refresh_tokens.add(refresh_record(clock, client_id))
        assert store.refresh_tokens.exchange(RefreshRequest("first", "second")).successor
        refuses(store, RefreshRequest("first", "x", "other"), RefreshFault.OTHER_CLIENT)
        refuses(store, RefreshRequest("first", "x", scopes=frozenset({Scope.TRAIN})), RefreshFault.SCOPES)
        store.api_keys.revoke("key-1")
        assert store.refresh_tokens.exchange(RefreshRequest("first", "x")).fault is RefreshFault.KEY_ENDED

    def test_only_its_own_family_ends(self, store: Store, clock: Clock, client_id: str) -> None:
        for name in ("first", "other"):
            store.refresh_tokens.add(refresh_record(clock, client_id, name, f"family of {name}"))
        store.refresh_tokens.exchange(RefreshRequest("first", "second"))
        clock.advance(REPEAT_S + 1)
        assert store.refresh_tokens.exchange(RefreshRequest("first", "x")).fault is RefreshFault.REUSED
        assert store.refresh_tokens.exchange(RefreshRequest("other", "x")).successor

    @pytest.mark.parametrize(
        ("request_", "fault"),
        [
            (RefreshRequest("none", "x"), RefreshFault.UNKNOWN),
            (RefreshRequest("first", "x", "other"), RefreshFault.OTHER_CLIENT),
            (RefreshRequest("first", "x", scopes=frozenset({Scope.TRAIN})), RefreshFault.SCOPES),
        ],
    )
    def test_a_fault_of_the_request_uses_nothing_up(
        self, store: Store, clock: Clock, client_id: str, request_: RefreshRequest, fault: RefreshFault
    ) -> None:
        store.refresh_tokens.add(refresh_record(clock, client_id))
        refuses(store, request_, fault)
        assert store.refresh_tokens.exchange(RefreshRequest("first", "x")).successor

    def test_it_ends_with_its_key_and_by_itself(self, store: Store, clock: Clock, client_id: str) -> None:
        store.refresh_tokens.add(refresh_record(clock, client_id, "a", "a"))
        store.refresh_tokens.add(refresh_record(clock, "no key", "b", "b"))
        assert store.refresh_tokens.exchange(RefreshRequest("b", "x")).fault is RefreshFault.KEY_ENDED
        clock.advance(86_400)
        refuses(store, RefreshRequest("a", "x"), RefreshFault.EXPIRED)
        store.refresh_tokens.add(refresh_record(clock, client_id, "c", "c"))
        refuses(store, RefreshRequest("a", "x"), RefreshFault.UNKNOWN)  # forgotten
        store.api_keys.revoke("key-1")
        assert store.refresh_tokens.exchange(RefreshRequest("c", "x")).fault is RefreshFault.KEY_ENDED
        refuses(store, RefreshRequest("c", "x"), RefreshFault.REVOKED)


def session_record(clock: Clock, sha256: str = "first", **fields: object) -> SessionRecord:
    values = {"owner": "ada", "scopes": {Scope.READ}, "created_at": clock(), "seen_at": clock(), **fields}
    return SessionRecord.model_validate({"sha256": sha256, "expires_at": clock() + timedelta(hours=12), **values})


class TestSessions:
    def test_all_of_an_owner_end(self, store: Store, clock: Clock) -> None:
        for name, owner in (("a", "ada"), ("b", "ada"), ("c", "bob")):
            store.sessions.add(session_record(clock, name, owner=owner))
        store.sessions.end("a")
        ended_at = clock()
        clock.advance(1)
        assert store.sessions.end_all_of("ada") == 1
        assert store.sessions.end_all_of("ada") == 0
        found = {name: store.sessions.of_hash(name) for name in "abc"}
        assert [each and each.ended_at for each in found.values()] == [ended_at, clock(), None]

    def test_one_is_found_used_and_ended(self, store: Store, clock: Clock) -> None:
        record = session_record(clock, client_id="prefix", binding="b")
        store.sessions.add(record)
        assert store.sessions.of_hash("first") == record
        assert store.sessions.of_hash("other") is None
        clock.advance(60)
        store.sessions.touch("first")
        store.sessions.touch("other")
        assert store.sessions.of_hash("first") == record.model_copy(update={"seen_at": clock()})
        store.sessions.end("first")
        ended_at = clock()
        clock.advance(60)
        store.sessions.end("first")
        found = store.sessions.of_hash("first")
        assert found is not None
        assert found.ended_at == ended_at

    def test_those_that_are_over_are_forgotten(self, store: Store, clock: Clock) -> None:
        store.sessions.add(session_record(clock))
        clock.advance(12 * 3600)
        store.sessions.add(session_record(clock, "second"))
        assert store.sessions.of_hash("first") is None
        assert store.sessions.of_hash("second") is not None

    def test_it_is_over_for_one_reason_or_another(self, clock: Clock) -> None:
        record = session_record(clock)
        assert record.fault_at(clock(), 3600) is None
        assert record.fault_at(clock() + timedelta(hours=1), 3600) == "has been idle for too long"
        assert record.fault_at(clock() + timedelta(hours=12), 1e9) == "has expired"
        assert record.model_copy(update={"ended_at": clock()}).fault_at(clock(), 3600) == "has been ended"
