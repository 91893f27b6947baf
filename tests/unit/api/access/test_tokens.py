"""Access tokens: got for API keys and refresh tokens, signed with keys that rotate, over the whole application."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote_plus, urljoin

import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import KeySet
from starlette.testclient import TestClient

from sienn_ray.access.principals import Scope
from sienn_ray.api.access import access_tokens
from sienn_ray.api.access.access_tokens import AccessTokens, TokenKeys
from sienn_ray.api.access.key_lookup import LIFETIME_S, KeyLookup
from sienn_ray.errors import CapacityError, InvalidTokenError
from sienn_ray.jobs.store import tables
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tokens import header_of, payload_of
from tests.unit.api.access.conftest import ADMIN_KEY
from tests.unit.api.access.test_authentication import key_of

TOKEN = "/api/auth/token"
ADMIN = {"X-API-Key": ADMIN_KEY}
PUBLIC_URL = "https://sienn.example.org"
Service = Callable[..., TestClient]


@pytest.fixture
def client(service: Service) -> TestClient:
    return service(public_url=PUBLIC_URL)


def ask(client: TestClient, key: str, basic: bool = False, **form: str) -> Any:
    """Ask for a token; the key's prefix is the client's id unless the form has another one."""
    client_id = form.pop("client_id", key.partition("_")[2].partition("_")[0])
    form = {"grant_type": "client_credentials", **form}
    if basic:
        encoded = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(key)}".encode()).decode()
        return client.post(TOKEN, data=form, headers={"Authorization": f"Basic {encoded}"})
    return client.post(TOKEN, data={"client_id": client_id, "client_secret": key, **form})


def refresh(client: TestClient, token: str, **form: str) -> Any:
    return client.post(TOKEN, data={"grant_type": "refresh_token", "refresh_token": token, **form})


def is_refused(response: Any, status: int, error: str) -> None:
    """The shape that OAuth's clients read, beside ours."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body["error"] == error
    assert body["error_description"]
    assert '"' not in body["error_description"]
    assert body["status_code"] == status
    assert response.headers["cache-control"] == "no-store"
    if status == 401:
        assert response.headers["www-authenticate"] == 'Basic realm="sienn_ray"'


def can(client: TestClient, token: str, path: str = "/api/jobs") -> int:
    return client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code


class TestForKeys:
    @pytest.mark.parametrize("basic", [False, True])
    def test_a_token_for_a_key(self, client: TestClient, tracker: InProcessTracker, basic: bool) -> None:
        key = key_of(tracker, "ada", Scope.READ, Scope.INFER)
        response = ask(client, key, basic)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        body = response.json()
        assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, "infer read")
        claims, prefix = payload_of(body["access_token"]), key.split("_")[1]
        assert claims.pop("exp") - claims.pop("iat") == 900
        assert len(claims.pop("jti")) == 32
        both = {"iss": PUBLIC_URL, "aud": PUBLIC_URL}
        assert claims == {**both, "sub": prefix, "client_id": prefix, "scope": "infer read"}
        header = header_of(body["access_token"])
        assert (header.pop("alg"), header.pop("typ"), list(header)) == ("ES256", "at+jwt", ["kid"])
        assert can(client, body["access_token"]) == 200

    def test_the_client_may_be_named_by_the_id_of_the_key(self, client: TestClient) -> None:
        created = client.post("/api/keys", json={"name": "a", "owner": "ada"}, headers=ADMIN).json()
        assert ask(client, created["key"], client_id=created["id"]).status_code == 200

    def test_scopes_can_be_narrowed_and_not_widened(self, client: TestClient, tracker: InProcessTracker) -> None:
        key = key_of(tracker, "ada", Scope.READ, Scope.INFER)
        narrow = ask(client, key, scope="infer").json()
        assert narrow["scope"] == "infer"
        assert can(client, narrow["access_token"]) == 403
        assert ask(client, key, scope=" read  infer read ").json()["scope"] == "infer read"
        assert ask(client, key, scope="").json()["scope"] == "infer read"
        is_refused(ask(client, key, scope="read train"), 400, "invalid_scope")
        is_refused(ask(client, key, scope="read admin"), 400, "invalid_scope")
        is_refused(ask(client, key, scope='write"'), 400, "invalid_scope")

    def test_an_admin_s_token_may_be_for_less_and_sees_less(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        key = key_of(tracker, "admin", Scope.ADMIN)
        assert can(client, ask(client, key).json()["access_token"], "/api/keys") == 200
        narrow = ask(client, key, scope="read").json()["access_token"]
        assert (can(client, narrow), can(client, narrow, "/api/keys")) == (200, 403)

    def test_the_admin_key_of_the_settings_gets_one_without_a_refresh_token(self, client: TestClient) -> None:
        body = ask(client, ADMIN_KEY, client_id="SIENN_ADMIN_KEY", basic=True).json()
        assert "refresh_token" not in body
        assert can(client, body["access_token"], "/api/keys") == 200

    @pytest.mark.parametrize("admin_key", ["a+b%20c/d:e=f&g h" + "x" * 32, "ä" * 40, "a.b.c" + "x" * 30])
    @pytest.mark.parametrize("encodes", [True, False])
    def test_any_secret_comes_through_basic(self, service: Service, admin_key: str, encodes: bool) -> None:
        """As the standard encodes it, and as many clients don't."""
        client, encode = service(admin_key=admin_key), quote_plus if encodes else str
        pair = base64.b64encode(f"SIENN_ADMIN_KEY:{encode(admin_key)}".encode()).decode()
        form = {"grant_type": "client_credentials"}
        assert client.post(TOKEN, data=form, headers={"Authorization": f"Basic {pair}"}).status_code == 200

    def test_no_refresh_tokens_where_there_are_to_be_none(self, service: Service, tracker: InProcessTracker) -> None:
        client = service(refresh_token_lifetime_s=0)
        assert "refresh_token" not in ask(client, key_of(tracker, "ada", Scope.READ)).json()

    def test_a_wrong_client_is_told_nothing_more(self, client: TestClient, tracker: InProcessTracker) -> None:
        key, other = (key_of(tracker, "ada", Scope.READ) for _ in range(2))
        revoked = client.post("/api/keys", json={"name": "a"}, headers=ADMIN).json()
        client.delete(f"/api/keys/{revoked['id']}", headers=ADMIN)
        answers = [
            ask(client, key[:-1] + ("A" if key[-1] != "A" else "B")),
            ask(client, key, client_id=other.split("_")[1]),
            ask(client, key, client_id=""),
            ask(client, ADMIN_KEY, client_id="admin"),
            ask(client, "sienn_unknown"),
            ask(client, revoked["key"]),
            ask(client, key[:-1] + ("A" if key[-1] != "A" else "B"), basic=True),
        ]
        for answer in answers:
            is_refused(answer, 401, "invalid_client")
        assert len({answer.json()["error_description"] for answer in answers}) == 1

    @pytest.mark.parametrize(
        ("headers", "status", "error"),
        [
            ({"Authorization": "Basic !"}, 401, "invalid_client"),
            ({"Authorization": "Basic " + base64.b64encode(b"no colon").decode()}, 401, "invalid_client"),
            ({"Authorization": "Basic " + base64.b64encode(b"\xff:a").decode()}, 401, "invalid_client"),
            ({"Content-Type": "application/json"}, 415, "invalid_request"),
            ({"Content-Type": "text/plain"}, 415, "invalid_request"),
        ],
    )
    def test_headers_that_are_wrong(self, client: TestClient, headers: dict[str, str], status: int, error: str) -> None:
        sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        is_refused(client.post(TOKEN, content="grant_type=client_credentials", headers=sent), status, error)

    @pytest.mark.parametrize(
        ("body", "status", "error"),
        [
            ("", 400, "invalid_request"),
            ("grant_type=", 400, "invalid_request"),
            ("grant_type=password&username=a&password=b", 400, "unsupported_grant_type"),
            ("grant_type=authorization_code&code=a", 400, "unsupported_grant_type"),
            ("grant_type=client_credentials", 401, "invalid_client"),
            ("grant_type=client_credentials&client_id=a", 401, "invalid_client"),
            ("grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
            ("grant_type=refresh_token", 400, "invalid_request"),
            ("grant_type=refresh_token&refresh_token=unknown", 400, "invalid_grant"),
            ("&".join(f"a{number}=1" for number in range(30)), 400, "invalid_request"),
            ("grant_type=%ff", 400, "invalid_request"),
            (b"grant_type=\xff", 400, "invalid_request"),
            ("a" * 1_048_577, 413, "invalid_request"),
        ],
    )
    def test_bodies_that_are_wrong(self, client: TestClient, body: str | bytes, status: int, error: str) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
        is_refused(client.post(TOKEN, content=body, headers=headers), status, error)

    def test_a_secret_is_sent_once(self, client: TestClient, tracker: InProcessTracker) -> None:
        key = key_of(tracker, "ada", Scope.READ)
        is_refused(ask(client, key, basic=True, client_secret=key), 400, "invalid_request")
        is_refused(ask(client, key, basic=True, refresh_token="a", grant_type="b"), 400, "unsupported_grant_type")

    def test_nothing_is_taken_from_the_url(self, client: TestClient, tracker: InProcessTracker) -> None:
        key = key_of(tracker, "ada", Scope.READ)
        query = {"grant_type": "client_credentials", "client_id": key.split("_")[1], "client_secret": key}
        refused = client.post(TOKEN, params=query, data=query)
        assert refused.status_code == 422
        assert key not in refused.text

    def test_the_tracker_may_be_away(self, client: TestClient, tracker: InProcessTracker) -> None:
        key = key_of(tracker, "ada", Scope.READ)
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        refused = ask(client, key)
        is_refused(refused, 503, "temporarily_unavailable")
        assert refused.headers["retry-after"] == "5"

    def test_guesses_are_limited_and_others_go_on(self, service: Service, tracker: InProcessTracker) -> None:
        key = key_of(tracker, "ada", Scope.READ)
        first, second = (service(token_rate_limits="4/minute", rate_limits="1000/minute") for _ in range(2))
        found = [ask(replica, key[:-2] + "xx").status_code for replica in (first, second) * 3]
        assert found == [401] * 4 + [429] * 2
        refused = ask(first, key)
        is_refused(refused, 429, "temporarily_unavailable")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert can(first, key) == 200
        assert ask(service("10.0.0.2", token_rate_limits="4/minute"), key).status_code == 200

    def test_requests_for_tokens_count_with_all_others(self, service: Service, tracker: InProcessTracker) -> None:
        client, key = service(rate_limits="2/minute"), key_of(tracker, "ada", Scope.READ)
        assert [ask(client, key).status_code for _ in range(3)] == [200, 200, 429]
        is_refused(ask(client, key), 429, "temporarily_unavailable")


class TestRefreshTokens:
    @pytest.fixture
    def first(self, client: TestClient, tracker: InProcessTracker) -> dict[str, Any]:
        key = key_of(tracker, "ada", Scope.READ, Scope.INFER, key_id="key-1")
        body: dict[str, Any] = {**ask(client, key).json(), "key": key}
        return body

    def test_each_is_exchanged_once(self, client: TestClient, first: dict[str, Any]) -> None:
        second = refresh(client, first["refresh_token"]).json()
        assert second["scope"] == "infer read"
        assert second["refresh_token"] != first["refresh_token"]
        assert can(client, second["access_token"]) == 200
        third = refresh(client, second["refresh_token"]).json()
        assert can(client, third["access_token"]) == 200

    def test_one_that_comes_again_ends_all_its_kin(self, client: TestClient, first: dict[str, Any]) -> None:
        """Whoever had it first may be the thief."""
        other = ask(client, first["key"]).json()
        second = refresh(client, first["refresh_token"]).json()
        third = refresh(client, second["refresh_token"]).json()
        reused = refresh(client, first["refresh_token"])
        is_refused(reused, 400, "invalid_grant")
        assert "was used before" in reused.json()["detail"]
        after = refresh(client, third["refresh_token"])
        is_refused(after, 400, "invalid_grant")
        assert "has been revoked" in after.json()["detail"]
        assert refresh(client, other["refresh_token"]).status_code == 200

    def test_of_several_at_the_same_time_one_goes_on(self, client: TestClient, first: dict[str, Any]) -> None:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: refresh(client, first["refresh_token"]), range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        tokens = {answer.json()["refresh_token"] for answer in answers}
        assert len(tokens) == 4
        # The last one's only, and with any of the others all end.
        found = sorted(refresh(client, token).status_code for token in tokens)
        assert found[1:] == [400, 400, 400]

    def test_a_tracker_that_restarts_in_between_costs_nothing(
        self, client: TestClient, tracker: InProcessTracker, first: dict[str, Any]
    ) -> None:
        """The token is spent, and then nobody can sign: its client does as `Retry-After` says."""

        def be_away(*_: Any) -> None:
            raise CapacityError("the job tracker is restarting")

        tracker.before["sign_token"] = be_away
        is_refused(refresh(client, first["refresh_token"]), 503, "temporarily_unavailable")
        del tracker.before["sign_token"]
        second = refresh(client, first["refresh_token"])
        assert second.status_code == 200
        assert refresh(client, second.json()["refresh_token"]).status_code == 200

    def test_scopes_can_be_narrowed_for_one_token(self, client: TestClient, first: dict[str, Any]) -> None:
        refused = refresh(client, first["refresh_token"], scope="read train")
        is_refused(refused, 400, "invalid_scope")  # and it isn't used up
        narrow = refresh(client, first["refresh_token"], scope="infer").json()
        assert narrow["scope"] == "infer"
        assert can(client, narrow["access_token"]) == 403
        assert refresh(client, narrow["refresh_token"]).json()["scope"] == "infer read"

    def test_a_client_that_says_who_it_is_has_to_be_the_one(
        self, client: TestClient, tracker: InProcessTracker, first: dict[str, Any]
    ) -> None:
        other = key_of(tracker, "bob", Scope.READ)
        fields: dict[str, Any] = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        is_refused(ask(client, other, **fields), 400, "invalid_grant")
        is_refused(ask(client, other[:-1] + ("A" if other[-1] != "A" else "B"), **fields), 401, "invalid_client")
        assert ask(client, first["key"], basic=True, **fields).status_code == 200

    def test_it_ends_with_its_key(self, client: TestClient, first: dict[str, Any]) -> None:
        client.delete("/api/keys/key-1", headers=ADMIN)
        refused = refresh(client, first["refresh_token"])
        is_refused(refused, 400, "invalid_grant")
        assert "key of the refresh token isn't valid any more" in refused.json()["detail"]

    def test_an_access_token_is_none(self, client: TestClient, first: dict[str, Any]) -> None:
        is_refused(refresh(client, first["access_token"]), 400, "invalid_grant")
        assert can(client, first["refresh_token"]) == 401


class TestKeys:
    """The keys that tokens are signed with."""

    def test_anybody_can_check_a_token(self, client: TestClient, tracker: InProcessTracker) -> None:
        token = ask(client, key_of(tracker, "ada", Scope.READ)).json()["access_token"]
        server = client.get("/.well-known/oauth-authorization-server").json()
        assert server["issuer"] == PUBLIC_URL
        assert server["token_endpoint"] == f"{PUBLIC_URL}/api/auth/token"
        document = client.get(server["jwks_uri"].removeprefix(PUBLIC_URL))
        assert document.json() == client.get("/api/auth/jwks").json()
        assert document.headers["cache-control"] == "public, max-age=300"
        claims = jwt.decode(token, KeySet.import_key_set(document.json()), algorithms=["ES256"]).claims
        assert claims["iss"] == server["issuer"]

    def test_nothing_private_is_shown(self, client: TestClient, tracker: InProcessTracker) -> None:
        ask(client, key_of(tracker, "ada", Scope.READ))
        (key,) = client.get("/api/auth/jwks").json()["keys"]
        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}

    def test_a_new_key_signs_and_the_old_one_still_counts(self, client: TestClient, tracker: InProcessTracker) -> None:
        key = key_of(tracker, "ada", Scope.READ)
        old = ask(client, key).json()["access_token"]
        assert client.post("/api/auth/token-keys/rotate", headers={"X-API-Key": key}).status_code == 403
        rotated = client.post("/api/auth/token-keys/rotate", headers=ADMIN)
        assert rotated.status_code == 201
        new = ask(client, key).json()["access_token"]
        assert header_of(new)["kid"] == rotated.json()["kid"] != header_of(old)["kid"]
        kids = [each["kid"] for each in client.get("/api/auth/jwks").json()["keys"]]
        assert kids == [header_of(new)["kid"], header_of(old)["kid"]]
        assert (can(client, new), can(client, old)) == (200, 200)

    def test_replicas_agree(self, service: Service, tracker: InProcessTracker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access_tokens, "_REFETCH_S", 0.0)
        first, second = service(), service()
        key = key_of(tracker, "ada", Scope.READ)
        for _ in range(2):
            token = ask(first, key).json()["access_token"]
            assert (can(first, token), can(second, token)) == (200, 200)
            assert second.post("/api/auth/token-keys/rotate", headers=ADMIN).status_code == 201

    def test_unknown_keys_cost_one_question(self, client: TestClient, tracker: InProcessTracker) -> None:
        token = ask(client, key_of(tracker, "ada", Scope.READ)).json()["access_token"]
        assert can(client, token) == 200
        before = tracker.calls.count("token_keys")
        for number in range(20):
            head = base64.urlsafe_b64encode(json.dumps({**header_of(token), "kid": f"k{number}"}).encode()).decode()
            assert can(client, f"{head.rstrip('=')}.{token.split('.', 1)[1]}") == 401
        assert tracker.calls.count("token_keys") <= before + 1

    def test_keys_are_asked_for_again_after_a_while(self, tracker: InProcessTracker) -> None:
        now = [0.0]
        keys = TokenKeys(tracker, lambda: now[0])

        async def kid() -> None:
            await keys.key("unknown")

        for moment, num_calls in ((0.0, 1), (0.5, 1), (1.5, 2)):
            now[0] = moment
            with pytest.raises(InvalidTokenError, match="a key that isn't known"):
                asyncio.run(kid())
            assert tracker.calls.count("token_keys") == num_calls


class TestCost:
    def test_a_token_is_verified_once_and_ends_with_its_key(self, tracker: InProcessTracker) -> None:
        now, moment = [0.0], [1_000_000.0]
        keys = KeyLookup(tracker, clock=lambda: now[0])
        tokens = AccessTokens(tracker, keys, "https://a.example", 600, clock=lambda: moment[0])
        text = key_of(tracker, "ada", Scope.READ, key_id="key-1")

        async def ask_often() -> None:
            token, _ = await tokens.issue(text.split("_")[1], frozenset({Scope.READ}))
            verify, num_verified = tokens._checked, 0

            async def counted(text: str) -> Any:
                nonlocal num_verified
                num_verified += 1
                return await verify(text)

            tokens._checked = counted  # type: ignore[method-assign]
            for _ in range(50):
                assert (await tokens.principal_of(token)).owner == "ada"
            assert num_verified == 1
            tracker.actor.revoke_api_key("key-1")
            now[0] += LIFETIME_S
            with pytest.raises(InvalidTokenError, match="has been revoked"):
                await tokens.principal_of(token)
            moment[0] += 606
            with pytest.raises(InvalidTokenError, match="has expired"):
                await tokens.principal_of(token)

        asyncio.run(ask_often())

    @pytest.mark.parametrize("behind_s", [0, 5])
    def test_a_replica_whose_clock_is_behind_takes_a_fresh_one(
        self, tracker: InProcessTracker, behind_s: float
    ) -> None:
        prefix = key_of(tracker, "ada", Scope.READ).split("_")[1]
        ahead, behind = (
            AccessTokens(tracker, KeyLookup(tracker), "https://a.example", 600, clock=partial(float, moment))
            for moment in (1_000_000.0, 1_000_000.0 - behind_s)
        )

        async def use() -> None:
            token, _ = await ahead.issue(prefix, frozenset({Scope.READ}))
            assert (await behind.principal_of(token)).owner == "ada"

        asyncio.run(use())

    def test_it_ends_once_its_signing_key_is_gone(self, tracker: InProcessTracker) -> None:
        now, moment = [0.0], [1_000_000.0]
        keys = KeyLookup(tracker, clock=lambda: now[0])
        tokens = AccessTokens(tracker, keys, "https://a.example", 3600, clock=lambda: moment[0])
        tokens._token_keys._clock = lambda: now[0]
        prefix = key_of(tracker, "ada", Scope.READ).split("_")[1]

        async def use() -> None:
            token, _ = await tokens.issue(prefix, frozenset({Scope.READ}))
            assert (await tokens.principal_of(token)).owner == "ada"
            with tracker.actor._store.database.writing() as connection:
                connection.execute(sa.delete(tables.token_keys))
            now[0] += 60.0
            moment[0] += 60.0
            with pytest.raises(InvalidTokenError, match="a key that isn't known, or not any more"):
                await tokens.principal_of(token)

        asyncio.run(use())

    def test_no_more_than_so_many_are_remembered(
        self, tracker: InProcessTracker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access_tokens, "_MAX_REMEMBERED", 3)
        tokens = AccessTokens(tracker, KeyLookup(tracker), "https://a.example", 600)
        prefix = key_of(tracker, "ada", Scope.READ).split("_")[1]

        async def use_many() -> None:
            for _ in range(5):
                await tokens.principal_of((await tokens.issue(prefix, frozenset({Scope.READ})))[0])

        asyncio.run(use_many())
        assert len(tokens._verified) == 3


def test_the_authorize_button_of_swagger_works(client: TestClient, tracker: InProcessTracker) -> None:
    """As Swagger UI does it: everything it knows is in the document."""
    key = key_of(tracker, "ada", Scope.READ)
    page = "http://testserver/openapi.json"
    document = client.get(page).json()
    (flow,) = document["components"]["securitySchemes"]["OAuth2"]["flows"].values()
    assert set(flow["scopes"]) == set(Scope)
    operation = document["paths"]["/api/jobs"]["get"]
    (wanted,) = {scope for each in operation["security"] for scope in each.get("OAuth2", [])} & {"read"}
    pair = base64.b64encode(f"{key.split('_')[1]}:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}", "X-Requested-With": "XMLHttpRequest", "Origin": "http://testserver"}
    form = {"grant_type": "client_credentials", "scope": wanted}
    answer = client.post(urljoin(page, flow["tokenUrl"]), data=form, headers=headers)
    token = answer.json()
    assert token["token_type"] == "Bearer"
    sent = {"Authorization": f"{token['token_type']} {token['access_token']}", "Origin": "http://testserver"}
    assert client.get("/api/jobs", headers=sent).status_code == 200
