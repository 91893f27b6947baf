"""Limits on a caller's answers, over the whole application and over four replicas of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from starlette.testclient import TestClient

from sienn_ray.access.claims import ClaimGrant, ClaimLimiter, ClaimLimits, ClaimReport
from sienn_ray.access.principals import Scope
from sienn_ray.access.quotas import Quotas, statistics_bucket
from sienn_ray.api.access import claim_gate
from sienn_ray.api.access.claim_gate import ClaimGate
from sienn_ray.api.app import create_app
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings
from tests.support.fake_issuer import AUDIENCE, FakeIssuer, fake_issuer
from tests.support.fakes_api import FakeEngines, dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.made_credentials import Credentials
from tests.unit.api.access.test_authentication import ADMIN, ADMIN_KEY, BODIES, GUARDED, key_of, request

ASKED = {"job_id": "ada-job", "prompt": "What is LoRA?", "max_new_tokens": 100}
# Its prompt has about 8 tokens; the fake engines' answers have 9 and 6.
RESERVED, USED = 108, 15
INFERRING = [
    each
    for each in GUARDED
    if each.id in BODIES and {"Bearer": ["infer"]} in each.values[2]["security"]  # type: ignore[index]
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY, rate_limits="")


@pytest.fixture
def tracker(tracker: InProcessTracker) -> InProcessTracker:
    tracker.put(dataset_record(id="ada-data", owner="ada"))
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    return tracker


def key(tracker: InProcessTracker, owner: str = "ada", **limits: Any) -> str:
    return key_of(tracker, owner, Scope.INFER, Scope.READ, Scope.TRAIN, **limits)


def headers(text: str) -> dict[str, str]:
    return {"X-API-Key": text}


def test_there_is_more_than_one_way_to_ask() -> None:
    ids = {each.id for each in INFERRING}
    assert ids >= {"test_model", "compare_models", "create_chat_completion", "create_completion"}


@pytest.mark.parametrize(("method", "path", "operation"), INFERRING)
class TestEveryOperationThatInfers:
    """Made from the OpenAPI document, so that a new route can't be forgotten."""

    def test_it_is_refused_while_as_many_are_open_as_may(
        self, client: TestClient, tracker: InProcessTracker, method: str, path: str, operation: dict[str, Any]
    ) -> None:
        text = key(tracker, max_open_answers=1, key_id="key-1")
        limits = ClaimLimits(max_open=1)
        other = ClaimGate(cast(Tracker, tracker))
        held = asyncio.run(other.claim("answers key-1", limits))
        refused = request(client, method, path, operation, text)
        assert refused.status_code == 429, refused.text
        assert refused.headers["retry-after"] == "1"
        assert "1 requests to models open and may have 1" in refused.text
        other.end(held)
        asyncio.run(other.report())
        assert request(client, method, path, operation, text).status_code == 200
        assert request(client, method, path, operation, text).status_code == 200, "the place was given back"

    def test_it_is_refused_when_no_tokens_are_left(
        self, client: TestClient, tracker: InProcessTracker, method: str, path: str, operation: dict[str, Any]
    ) -> None:
        text = key(tracker, tokens_per_minute=2000, key_id="key-1")
        other = ClaimGate(cast(Tracker, tracker))
        asyncio.run(other.claim("answers key-1", ClaimLimits(tokens_per_minute=2000), 1999))
        refused = request(client, method, path, operation, text)
        assert refused.status_code == 429, refused.text
        assert int(refused.headers["retry-after"]) in range(55, 61)
        assert refused.headers["x-ratelimit-limit-tokens"] == "2000"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "1"
        assert "1 of its 2000 in a minute left" in refused.text

    def test_what_can_never_fit_says_so(
        self, client: TestClient, tracker: InProcessTracker, method: str, path: str, operation: dict[str, Any]
    ) -> None:
        refused = request(client, method, path, operation, key(tracker, tokens_per_minute=5))
        assert refused.status_code == 400, refused.text
        assert "has 5 in a minute: it can never be answered" in refused.text


def ask(client: TestClient, text: str, **fields: Any) -> Any:
    return client.post("/api/test-model", json={**ASKED, **fields}, headers=headers(text))


class TestTokens:
    def test_what_is_reserved_is_settled_with_what_was_used(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        text = key(tracker, tokens_per_minute=RESERVED + 2 * USED)
        found = [ask(client, text) for _ in range(4)]
        assert [each.status_code for each in found] == [200, 200, 200, 429]
        left = [each.headers["x-ratelimit-remaining-tokens"] for each in found]
        assert left == [str(2 * USED), str(USED), "0", str(RESERVED - USED)]
        assert found[0].headers["x-ratelimit-limit-tokens"] == str(RESERVED + 2 * USED)
        assert found[0].headers["x-ratelimit-reset-tokens"] == "60s"

    def test_answers_of_one_request_are_admitted_together(
        self, client: TestClient, tracker: InProcessTracker, engines: FakeEngines
    ) -> None:
        text = key(tracker, tokens_per_minute=250, max_open_answers=1)
        chat = {"model": "ada-job", "messages": [{"role": "user", "content": "a"}], "max_tokens": 50}
        assert client.post("/v1/chat/completions", json={**chat, "n": 4}, headers=headers(text)).status_code == 200
        num_asked = len(engines.asked)
        refused = client.post("/v1/chat/completions", json={**chat, "n": 4}, headers=headers(text))
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert len(engines.asked) == num_asked, "none of them is asked for"

    def test_a_failure_costs_nothing(self, client: TestClient, tracker: InProcessTracker, engines: FakeEngines) -> None:
        text = key(tracker, tokens_per_minute=RESERVED)
        engines.error = CapacityError("the engine starts")
        assert [ask(client, text).status_code for _ in range(3)] == [503] * 3
        engines.error = None
        assert ask(client, text).status_code == 200

    def test_keys_are_counted_apart(self, client: TestClient, tracker: InProcessTracker) -> None:
        first, second = (key(tracker, tokens_per_minute=RESERVED) for _ in range(2))
        assert [ask(client, each).status_code for each in (first, first, second)] == [200, 429, 200]

    def test_keys_without_limits_have_those_of_the_settings(
        self, settings: Settings, tracker: InProcessTracker
    ) -> None:
        chosen = settings.model_copy(update={"key_tokens_per_minute": RESERVED})
        with TestClient(create_app(fake_backends(chosen, tracker=tracker))) as client:
            plain, richer = key(tracker), key(tracker, tokens_per_minute=10 * RESERVED)
            assert [ask(client, plain).status_code for _ in range(2)] == [200, 429]
            assert [ask(client, richer).status_code for _ in range(2)] == [200, 200]
            assert [ask(client, ADMIN_KEY).status_code for _ in range(2)] == [200, 200]

    def test_without_limits_nobody_is_asked(self, client: TestClient, tracker: InProcessTracker) -> None:
        answered = ask(client, key(tracker))
        assert "x-ratelimit-limit-tokens" not in answered.headers
        assert "settle_claims" not in tracker.calls

    def test_where_the_tracker_can_not_count_answers_are_given(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        text = key(tracker, tokens_per_minute=RESERVED)

        def away(*_: Any) -> None:
            raise CapacityError("the job tracker is restarting")

        tracker.before["settle_claims"] = away
        assert [ask(client, text).status_code for _ in range(2)] == [200, 200]


class Outside:
    """A service that takes callers whom an outside issuer knows, with a job for each of two of them."""

    def __init__(self, issuer: FakeIssuer, settings: Settings, tracker: InProcessTracker) -> None:
        self._issuer = issuer
        self._credentials = Credentials(tracker, settings, issuer)
        self.client = TestClient(create_app(fake_backends(settings, tracker=tracker)))
        for name in ("ada", "bob"):
            owner = self.owner(name)
            tracker.put(dataset_record(id=f"{name}-set", owner=owner))
            status = JobStatus.COMPLETED
            tracker.put(job_record(id=f"{name}-own", owner=owner, dataset_id=f"{name}-set", status=status))

    def owner(self, name: str) -> str:
        return f"{self._issuer.url}|{name}"

    def ask(self, kind: str, name: str = "ada", **claims: Any) -> Any:
        sent = {"Authorization": f"Bearer {self._issuer.token(sub=name, scope='infer', **claims)}"}
        if kind == "session":
            cookie = self._credentials.session(self.owner(name), Scope.INFER, client_id=None)
            sent = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
        return self.client.post("/api/test-model", json={**ASKED, "job_id": f"{name}-own"}, headers=sent)


class TestCallersWithoutKeys:
    """Those whom an outside issuer knows, by its tokens and by logins."""

    @pytest.fixture
    def outside(self, settings: Settings, tracker: InProcessTracker) -> Iterator[Callable[..., Outside]]:
        with fake_issuer() as issuer, ExitStack() as stack:

            def make(**changes: Any) -> Outside:
                oidc = {
                    "oidc_issuer": issuer.url,
                    "oidc_audience": AUDIENCE,
                    "oidc_admin_group": "admins",
                    "oidc_client_id": "sienn",
                }
                chosen = Settings(**{**settings.model_dump(exclude_unset=True), **oidc, **changes})
                made = Outside(issuer, chosen, tracker)
                stack.enter_context(made.client)
                return made

            yield make

    @pytest.mark.parametrize("kinds", [("token", "session"), ("session", "token")])
    def test_tokens_and_logins_of_an_owner_count_together(
        self, outside: Callable[..., Outside], kinds: tuple[str, str]
    ) -> None:
        service = outside(key_tokens_per_minute=RESERVED)
        answered = [service.ask(kind) for kind in kinds]
        assert [each.status_code for each in answered] == [200, 429], [each.text for each in answered]
        assert answered[0].headers["x-ratelimit-limit-tokens"] == str(RESERVED)
        assert f"the owner has {RESERVED - USED} of its {RESERVED} in a minute left" in answered[1].text

    def test_owners_are_counted_apart(self, outside: Callable[..., Outside]) -> None:
        service = outside(key_tokens_per_minute=RESERVED)
        found = [service.ask("token", name).status_code for name in ("ada", "bob", "ada", "bob")]
        assert found == [200, 200, 429, 429]

    def test_they_have_so_many_open_and_no_more(
        self, outside: Callable[..., Outside], tracker: InProcessTracker
    ) -> None:
        service = outside(key_max_open_answers=1)
        other = ClaimGate(cast(Tracker, tracker))
        asyncio.run(other.claim(f"answers owner {service.owner('ada')}", ClaimLimits(max_open=1)))
        refused = service.ask("token")
        assert refused.status_code == 429
        assert "this owner has 1 requests to models open and may have 1" in refused.text

    def test_an_admin_has_no_limits(self, outside: Callable[..., Outside]) -> None:
        service = outside(key_tokens_per_minute=RESERVED)
        assert [service.ask("token", groups=["admins"]).status_code for _ in range(2)] == [200, 200]


def test_a_key_is_made_with_limits_and_rotated_with_them(client: TestClient) -> None:
    body = {"name": "busy", "tokens_per_minute": 60000, "max_open_answers": 8}
    made = client.post("/api/keys", json=body, headers=ADMIN).json()
    rotated = client.post(f"/api/keys/{made['id']}/rotate", json={}, headers=ADMIN).json()
    for each in (made, rotated):
        assert (each["tokens_per_minute"], each["max_open_answers"]) == (60000, 8)
    for wrong in ({"tokens_per_minute": 0}, {"max_open_answers": -1}):
        assert client.post("/api/keys", json={"name": "a", **wrong}, headers=ADMIN).status_code == 422


@asynccontextmanager
async def replicas(settings: Settings, tracker: InProcessTracker, number: int) -> AsyncIterator[list[Any]]:
    """Applications that share a tracker, each with engines of its own."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(number):
            engines = FakeEngines()
            app = create_app(fake_backends(settings, tracker=tracker, engines=engines))
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx2.ASGITransport(app=app)
            client = await stack.enter_async_context(
                httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1")
            )
            made.append((client, engines))
        yield made


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (the tracker has no event to wait for)
            await asyncio.sleep(0.01)


class TestPlaces:
    def test_a_place_is_held_until_the_client_leaves(self, settings: Settings, tracker: InProcessTracker) -> None:
        text = key(tracker, max_open_answers=1)

        async def follow() -> None:
            async with replicas(settings, tracker, 2) as ((first, engines), (second, _)):
                engines.hangs = True
                asking = asyncio.create_task(first.post("/api/test-model", json=ASKED, headers=headers(text)))
                await until(lambda: engines.num_running)
                assert (await second.post("/api/test-model", json=ASKED, headers=headers(text))).status_code == 429
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await until(lambda: not tracker.actor._claims._bucket_of)
                assert (await second.post("/api/test-model", json=ASKED, headers=headers(text))).status_code == 200

        asyncio.run(follow())

    def test_a_stream_holds_its_place_until_its_end(self, settings: Settings, tracker: InProcessTracker) -> None:
        text = key(tracker, max_open_answers=1)

        async def follow() -> None:
            async with replicas(settings, tracker, 1) as ((client, engines),):
                engines.hangs = True
                body = {**ASKED, "stream": True}
                asking = asyncio.create_task(client.post("/api/test-model", json=body, headers=headers(text)))
                await until(lambda: engines.num_running)
                await asyncio.sleep(0)
                assert (await client.post("/api/test-model", json=ASKED, headers=headers(text))).status_code == 429
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                engines.hangs = False
                for _ in range(2):
                    ended = await client.post("/api/test-model", json=body, headers=headers(text))
                    assert ended.status_code == 200

        asyncio.run(follow())


class Slow:
    """A counter that answers after a while, as over the network, and sometimes in another order."""

    def __init__(self, seed: int) -> None:
        self.limiter = ClaimLimiter(lambda: 0.0)
        self.chance = random.Random(seed)

    async def settle_claims(self, report: ClaimReport) -> ClaimGrant | None:
        for _ in range(self.chance.randint(1, 20)):
            await asyncio.sleep(0)
        answer = self.limiter.settle(report)
        for _ in range(self.chance.randint(1, 20)):
            await asyncio.sleep(0)
        return answer


@pytest.mark.parametrize("num_at_once", [1, 4, 50])
@pytest.mark.parametrize("seed", range(3))
def test_four_replicas_let_through_the_tokens_of_the_limit(seed: int, num_at_once: int) -> None:
    """Within 2%: whatever is let through is within the limit, and no more than one claim's tokens are left over."""
    slow = Slow(seed)
    gates = [ClaimGate(cast(Tracker, slow)) for _ in range(4)]
    limits = ClaimLimits(max_open=40, tokens_per_minute=10_000)
    most_open = 0

    async def send_all() -> int:
        places = asyncio.Semaphore(num_at_once)
        num_used = 0

        async def send(number: int) -> None:
            nonlocal num_used, most_open
            async with places:
                gate, tokens = gates[number % 4], slow.chance.randint(1, 100)
                held = await gate.claim("key", limits, 100)
                if held.is_granted:
                    most_open = max(most_open, sum(each.num_open for each in gates))
                    await asyncio.sleep(0)
                    num_used += tokens
                    gate.end(held, tokens)

        for _ in range(4):  # who is refused comes again
            await asyncio.gather(*(send(number) for number in range(300)))
            await asyncio.gather(*(gate.report() for gate in gates))
        return num_used

    num_used = asyncio.run(send_all())
    assert 9_800 <= num_used <= 10_000
    assert most_open <= 40


class Held:
    """A counter that answers when a test says so."""

    def __init__(self) -> None:
        self.limiter = ClaimLimiter(lambda: 0.0)  # no lease ends
        self.is_held = False
        self.reports: list[ClaimReport] = []
        self.let_go = asyncio.Event()

    async def settle_claims(self, report: ClaimReport) -> ClaimGrant | None:
        self.reports.append(report)
        if self.is_held:
            await self.let_go.wait()
        return self.limiter.settle(report)


class TestReports:
    @pytest.fixture(autouse=True)
    def pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No report comes in a test by the clock: each is because of a claim that has ended."""
        monkeypatch.setattr(claim_gate, "RENEW_S", 3600.0)

    def test_a_place_that_ends_while_others_are_reported_comes_back_at_once(self) -> None:
        async def follow() -> None:
            held = Held()
            gate, limits = ClaimGate(cast(Tracker, held)), ClaimLimits(max_open=2)
            first, second = [await gate.claim("key", limits) for _ in range(2)]
            async with gate.running():
                held.is_held = True
                gate.end(first)
                await until(lambda: len(held.reports) == 3)
                gate.end(second)  # while the report about the first is under way
                held.let_go.set()
                await until(lambda: not held.limiter.num_open("key"))

        asyncio.run(follow())

    def test_what_a_failed_report_was_about_is_told_later_and_not_at_once(self) -> None:
        async def follow() -> None:
            held, num_failed = Held(), 0

            class Away:
                async def settle_claims(self, report: ClaimReport) -> ClaimGrant | None:
                    nonlocal num_failed
                    if report.wanted is not None:
                        return await held.settle_claims(report)
                    num_failed += 1
                    raise CapacityError("the job tracker is restarting")

            gate = ClaimGate(cast(Tracker, Away()))
            claim = await gate.claim("key", ClaimLimits(max_open=1))
            async with gate.running():
                gate.end(claim)
                await until(lambda: num_failed)
                for _ in range(100):
                    await asyncio.sleep(0)
                assert num_failed == 1
            await gate.claim("other", ClaimLimits(max_open=1))
            assert held.reports[-1].ended == ((claim.claim.id, 0),)

        asyncio.run(follow())


class TestStatistics:
    def test_an_owner_computes_no_more_at_once_than_it_may(
        self, client: TestClient, tracker: InProcessTracker, cached_base_model: str
    ) -> None:
        tracker.actor.set_owner_quotas("ada", Quotas(max_statistics=1))
        text = key(tracker)
        other = ClaimGate(cast(Tracker, tracker))
        held = asyncio.run(other.claim(statistics_bucket("ada"), ClaimLimits(max_open=1)))
        path = "/api/datasets/ada-data/statistics"
        seen = client.get("/api/limits", headers=headers(text)).json()
        assert seen["statistics"] == {"used": 1, "limit": 1, "is_own": True}
        refused = client.get(path, headers=headers(text))
        assert refused.status_code == 429
        assert "statistics of 1 of your datasets are being computed" in refused.json()["detail"]
        other.end(held)
        asyncio.run(other.report())
        for max_length in (256, 512):  # each gives its place back
            answered = client.get(path, headers=headers(text), params={"max_length": max_length})
            assert answered.status_code == 200

    def test_who_asks_for_what_is_being_computed_waits_for_it(
        self, settings: Settings, tracker: InProcessTracker, cached_base_model: str
    ) -> None:
        tracker.actor.set_owner_quotas("ada", Quotas(max_statistics=1))
        text, path = key(tracker), "/api/datasets/ada-data/statistics"

        async def follow() -> None:
            async with replicas(settings, tracker, 1) as ((client, _),):
                found = await asyncio.gather(*(client.get(path, headers=headers(text)) for _ in range(4)))
                assert [each.status_code for each in found] == [200] * 4, [each.text for each in found]

        asyncio.run(follow())

    @pytest.mark.parametrize(("changes", "limit"), [({}, 2), ({"owner_max_statistics": 5}, 5)])
    def test_an_owner_has_a_limit_where_keys_are_needed(
        self, settings: Settings, tracker: InProcessTracker, changes: dict[str, int], limit: int
    ) -> None:
        chosen = settings.model_copy(update=changes)
        with TestClient(create_app(fake_backends(chosen))) as client:
            seen = client.get("/api/limits", headers=ADMIN).json()
        assert seen["statistics"]["limit"] == limit
