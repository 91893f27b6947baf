"""Rate limits over the whole application, and over four replicas of it at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from sienn_ray.access.api_keys import ApiKey
from sienn_ray.access.rate_limits import LENT_S, Grant, PermitRequest, RateLimiter
from sienn_ray.api.access.rate_gate import RateGate
from sienn_ray.api.http.rate_limits import network_of
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.tracker_protocol import Tracker
from tests.unit.api.access.conftest import ADMIN_KEY

ADMIN = {"X-API-Key": ADMIN_KEY}
Service = Callable[..., TestClient]


def statuses(client: TestClient, number: int, **headers: str) -> list[int]:
    given = {name.replace("_", "-"): value for name, value in headers.items()} or ADMIN
    return [client.get("/api/jobs", headers=given).status_code for _ in range(number)]


def test_what_is_too_much_is_told_with_the_way_out(service: Service) -> None:
    client = service(rate_limits="5/minute;50/hour")
    assert statuses(client, 5) == [200] * 5
    refused = client.get("/api/jobs", headers=ADMIN)
    assert refused.status_code == 429
    retry_after_s = int(refused.headers["retry-after"])
    assert 55 <= retry_after_s <= 60
    detail = f"more than 5 requests in 60 s; come back in {retry_after_s} s, or ask for a key with higher limits"
    assert refused.json() == {"detail": detail, "status_code": 429}
    assert refused.headers["ratelimit-policy"] == '"60s";q=5;w=60, "3600s";q=50;w=3600'
    assert refused.headers["ratelimit"] == f'"60s";r=0;t={retry_after_s}'
    assert client.get("/v1/models", headers=ADMIN).json()["error"]["type"] == "rate_limit_error"


def test_each_response_says_what_is_left(service: Service) -> None:
    client = service(rate_limits="5/minute")
    found = [client.get("/api/jobs", headers=ADMIN).headers["ratelimit"] for _ in range(5)]
    assert [each.split(";")[1] for each in found] == [f"r={left}" for left in (4, 3, 2, 1, 0)]


def test_health_checks_are_not_counted(service: Service) -> None:
    client = service(rate_limits="1/minute")
    assert [client.get("/health").status_code for _ in range(5)] == [200] * 5
    assert statuses(client, 2) == [200, 429]
    assert client.get("/health").status_code == 200


def test_requests_without_a_valid_key_are_counted_too(service: Service) -> None:
    client = service(rate_limits="3/minute")
    assert statuses(client, 2, X_API_Key="wrong") == [401] * 2
    assert client.get("/api/jobs").status_code == 401
    assert statuses(client, 1, X_API_Key="wrong") == [429]
    assert statuses(client, 1) == [429]


def test_addresses_are_counted_apart_and_replicas_together(service: Service) -> None:
    first, second = (service(rate_limits="4/minute") for _ in range(2))
    other = service("10.0.0.2", rate_limits="4/minute")
    assert statuses(first, 2) + statuses(second, 2) == [200] * 4
    assert statuses(first, 1) + statuses(second, 1) == [429] * 2
    assert statuses(other, 1) == [200]


def test_a_key_may_have_limits_of_its_own(service: Service) -> None:
    client = service(rate_limits="4/minute")
    body = {"name": "busy", "rate_limits": "6/minute"}
    key = client.post("/api/keys", json=body, headers=ADMIN).json()
    assert key["rate_limits"] == "6/minute"
    assert statuses(client, 7, X_API_Key=key["key"]) == [200] * 6 + [429]
    assert statuses(client, 1) == [200]


@pytest.mark.parametrize("limits", ["", "lots", "0"])
def test_wrong_limits_of_a_key_are_named(service: Service, limits: str) -> None:
    refused = service().post("/api/keys", json={"name": "a", "rate_limits": limits}, headers=ADMIN)
    assert refused.status_code == 422
    assert "isn't of the form '100/minute;1000/hour'" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "is_limited"),
    [
        ({"auth": "on"}, True),
        ({"auth": "on", "rate_limits": ""}, False),
        ({"auth": "off"}, False),
        ({"auth": "auto"}, False),
        ({"auth": "off", "rate_limits": "100/minute"}, True),
    ],
)
def test_limits_come_with_authentication_unless_they_are_chosen(
    service: Service, fields: dict[str, Any], is_limited: bool
) -> None:
    response = service(**fields).get("/api/jobs", headers=ADMIN)
    assert response.status_code == 200
    assert ("ratelimit" in response.headers) is is_limited


class TestProxies:
    def test_anybody_else_s_word_on_where_they_are_is_not_taken(self, service: Service) -> None:
        client = service(rate_limits="2/minute")
        found = [client.get("/api/jobs", headers={**ADMIN, "X-Forwarded-For": f"10.9.9.{n}"}) for n in range(3)]
        assert [each.status_code for each in found] == [200, 200, 429]

    @pytest.mark.parametrize("proxies", ["10.0.0.1", "192.168.0.0/16, 10.0.0.0/8"])
    def test_a_trusted_proxy_s_is(self, service: Service, proxies: str) -> None:
        client = service(rate_limits="2/minute", trusted_proxies=proxies)
        for origin in ("203.0.113.1", "203.0.113.2"):
            headers = {**ADMIN, "X-Forwarded-For": f"198.51.100.7, {origin}"}  # the client's own word comes first
            assert [client.get("/api/jobs", headers=headers).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("testclient", "testclient"),
    ],
)
def test_one_customer_is_one_client(address: str, network: str) -> None:
    assert network_of({"client": (address, 1)}) == network
    assert network_of({"client": None}) == "unknown"


class Slow:
    """A limiter that answers after a while, as over the network."""

    def __init__(self) -> None:
        self.limiter = RateLimiter()
        self.num_calls = 0
        self.chance = random.Random(7)
        self.error: Exception | None = None

    async def settle_permits(self, holder: str, request: PermitRequest) -> Grant:
        self.num_calls += 1
        for _ in range(self.chance.randint(1, 20)):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.limiter.settle(holder, request)


def gate(slow: Slow, clock: Callable[[], float] = lambda: 0.0) -> RateGate:
    return RateGate(cast(Tracker, slow), clock)


class TestGate:
    @pytest.mark.parametrize("num_at_once", [1, 4, 50])
    def test_four_replicas_let_the_limit_through_to_the_request(self, num_at_once: int) -> None:
        slow = Slow()
        gates = [gate(slow) for _ in range(4)]

        async def send_all() -> int:
            places = asyncio.Semaphore(num_at_once)

            async def send(number: int) -> bool:
                async with places:
                    return (await gates[number % 4].passage("address", "100/minute")).is_allowed

            return sum(await asyncio.gather(*(send(number) for number in range(400))))

        num_passed = asyncio.run(send_all())
        assert 98 <= num_passed <= 100

    def test_most_requests_ask_nobody(self) -> None:
        slow = Slow()
        one = gate(slow)

        async def send_all() -> list[bool]:
            return [(await one.passage("address", "1000/minute")).is_allowed for _ in range(500)]

        assert all(asyncio.run(send_all()))
        assert slow.num_calls < 25

    def test_a_client_that_is_over_its_limit_costs_nothing_more(self) -> None:
        slow = Slow()
        one = gate(slow)

        async def send_all() -> list[bool]:
            return [(await one.passage("address", "10/minute")).is_allowed for _ in range(100)]

        assert asyncio.run(send_all()) == [True] * 10 + [False] * 90
        assert slow.num_calls <= 11

    def test_what_was_used_is_reported_once_nobody_asks_any_more(self) -> None:
        now = [0.0]
        slow = Slow()
        one, two = gate(slow, lambda: now[0]), gate(slow, lambda: now[0])

        async def send_all() -> int:
            for _ in range(5):
                await one.passage("address", "100/minute")
            await one.report()  # too early: the permits still hold
            now[0] = LENT_S
            await one.report()
            passages = [await two.passage("address", "100/minute") for _ in range(100)]
            return sum(each.is_allowed for each in passages)

        assert asyncio.run(send_all()) == 95

    @pytest.mark.parametrize("error", [CapacityError("the job tracker is restarting"), KeyError("unforeseen")])
    def test_requests_pass_while_nobody_can_be_asked(self, error: Exception) -> None:
        slow = Slow()
        slow.error = error

        async def send_all() -> list[bool]:
            one = gate(slow)
            return [(await one.passage("address", "1/minute")).is_allowed for _ in range(3)]

        assert asyncio.run(asyncio.wait_for(send_all(), 10)) == [True] * 3

    def test_who_gives_up_waiting_takes_no_permit(self) -> None:
        slow = Slow()
        one = gate(slow)

        async def send_all() -> list[bool]:
            given_up = [asyncio.create_task(one.passage("address", "8/minute")) for _ in range(8)]
            await asyncio.sleep(0)
            for each in given_up:
                each.cancel()
            await asyncio.gather(*given_up, return_exceptions=True)
            return [(await one.passage("address", "8/minute")).is_allowed for _ in range(8)]

        assert sum(asyncio.run(send_all())) >= 7

    def test_only_so_many_clients_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sienn_ray.api.access.rate_gate._MAX_CLIENTS", 3)
        one = gate(Slow())

        async def send_all() -> None:
            for number in range(5):
                await one.passage(f"address {number}", "8/minute")

        asyncio.run(send_all())
        assert len(one._clients) == 3


def test_keys_are_limited_by_what_they_are_not_by_what_they_say(service: Service) -> None:
    """A key with limits of its own that isn't valid counts with its address."""
    client = service(rate_limits="1/minute")
    assert statuses(client, 2, X_API_Key=ApiKey.random().text) == [401, 429]
