"""Webhooks over the API, and one from a job's end to its receiver."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook
from starlette.testclient import TestClient

from sienn_ray.access.principals import Scope
from sienn_ray.api.app import create_app
from sienn_ray.jobs.webhook_schema import DeliveryQuery, DeliveryStatus
from sienn_ray.outbound.addresses import Address
from sienn_ray.outbound.resolver import SystemResolver
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_jobs import job_record
from tests.support.in_process import running_service
from tests.support.in_process_tracker import InProcessTracker
from tests.support.receiver import FakeResolver, receiving
from tests.unit.api.access.test_authentication import ADMIN, ADMIN_KEY, key_of
from tests.unit.outbound.test_addresses import NOT_PUBLIC
from tests.unit.outbound.test_urls import REFUSED

URL = "https://hooks.example.org/in"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY, max_webhooks=3)


@pytest.fixture
def resolver() -> FakeResolver:
    return FakeResolver(hooks_example_org=[["93.184.216.34"]], inside_example_org=[["93.184.216.34", "10.0.0.1"]])


@pytest.fixture
def client(settings: Settings, tracker: InProcessTracker, resolver: FakeResolver) -> Iterator[TestClient]:
    with TestClient(create_app(fake_backends(settings, tracker=tracker, resolver=resolver))) as client:
        yield client


@pytest.fixture
def ada(tracker: InProcessTracker) -> dict[str, str]:
    return {"X-API-Key": key_of(tracker, "ada", Scope.TRAIN, Scope.READ)}


@pytest.fixture
def bob(tracker: InProcessTracker) -> dict[str, str]:
    return {"X-API-Key": key_of(tracker, "bob", Scope.TRAIN, Scope.READ)}


def created(client: TestClient, who: dict[str, str], **body: Any) -> dict[str, Any]:
    response = client.post("/api/webhooks", headers=who, json={"url": URL, **body})
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    made: dict[str, Any] = response.json()
    return made


def test_a_webhook_is_made_and_its_secret_is_shown_once(client: TestClient, ada: dict[str, str]) -> None:
    made = created(client, ada, url="HTTPS://Hooks.Example.ORG:443/in", description="chat", events=["job.failed"])
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["url"], made["owner"], made["events"], made["is_active"]) == (URL, "ada", ["job.failed"], True)
    path = f"/api/webhooks/{made['webhook_id']}"
    assert client.get(path, headers=ada).json() == made
    assert client.get("/api/webhooks", headers=ada).json() == {"webhooks": [made], "count": 1}
    client.post(f"{path}/test", headers=ada)
    paths = (path, "/api/webhooks", f"{path}/deliveries")
    assert all(secret not in client.get(each, headers=who).text for each in paths for who in (ada, ADMIN))


def test_all_events_by_default(client: TestClient, ada: dict[str, str]) -> None:
    expected = ["job.completed", "job.failed", "job.paused", "job.cancelled", "export.completed", "export.failed"]
    assert created(client, ada)["events"] == expected


def test_owners_are_kept_apart_and_an_admin_sees_all(
    client: TestClient, ada: dict[str, str], bob: dict[str, str]
) -> None:
    adas, bobs = created(client, ada)["webhook_id"], created(client, bob)["webhook_id"]
    for who, seen in ((ada, [adas]), (bob, [bobs]), (ADMIN, [bobs, adas])):
        listed = client.get("/api/webhooks", headers=who).json()
        assert [each["webhook_id"] for each in listed["webhooks"]] == seen
    delivery = client.post(f"/api/webhooks/{bobs}/test", headers=bob).json()["delivery_id"]
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/rotate-secret"),
        ("GET", "/deliveries"),
        ("POST", f"/deliveries/{delivery}/redeliver"),
    ):
        response = client.request(method, f"/api/webhooks/{bobs}{path}", headers=ada, json={})
        assert (response.status_code, response.json()["detail"]) == (404, f"Webhook {bobs} not found")
    # Nor a delivery of one's own webhook by another one's id.
    other = client.post(f"/api/webhooks/{adas}/deliveries/{delivery}/redeliver", headers=ada)
    assert (other.status_code, other.json()["detail"]) == (404, f"Delivery {delivery} not found")


def test_an_owner_has_so_many(client: TestClient, ada: dict[str, str], bob: dict[str, str]) -> None:
    for _ in range(3):
        created(client, ada)
    response = client.post("/api/webhooks", headers=ada, json={"url": URL})
    assert response.status_code == 409
    assert "SIENN_MAX_WEBHOOKS of an owner is 3; delete one" in response.json()["detail"]
    created(client, bob)


def test_a_webhook_is_changed(client: TestClient, ada: dict[str, str]) -> None:
    path = f"/api/webhooks/{created(client, ada)['webhook_id']}"
    before = client.get(path, headers=ada).json()
    changed = client.patch(path, headers=ada, json={"events": ["export.failed"], "is_active": False}).json()
    expected = {**before, "events": ["export.failed"], "is_active": False, "updated_at": changed["updated_at"]}
    assert changed == expected
    assert client.patch(path, headers=ada, json={}).json()["events"] == ["export.failed"]
    assert client.patch(path, headers=ada, json={"description": "x"}).json()["description"] == "x"
    assert client.patch(path, headers=ada, json={"description": None}).json()["description"] is None
    other = client.patch(path, headers=ada, json={"url": "https://hooks.example.org/other"})
    assert (other.status_code, other.json()["url"]) == (200, "https://hooks.example.org/other")
    assert client.patch(path, headers=ada, json={"url": URL}).json()["url"] == URL
    inside = client.patch(path, headers=ada, json={"url": "https://inside.example.org/"})
    assert inside.status_code == 400
    assert client.get(path, headers=ada).json()["url"] == URL


def test_a_secret_is_rotated(client: TestClient, ada: dict[str, str]) -> None:
    made = created(client, ada)
    path = f"/api/webhooks/{made['webhook_id']}/rotate-secret"
    rotated = client.post(path, headers=ada, json={"grace_s": 60})
    assert rotated.headers["cache-control"] == "no-store"
    assert rotated.json()["secret"] not in {made["secret"], None}
    assert rotated.json()["old_secret_until"] is not None
    assert client.post(path, headers=ada, json={"grace_s": 0}).json()["old_secret_until"] is None


def test_deliveries_are_listed_and_repeated(client: TestClient, ada: dict[str, str], tracker: InProcessTracker) -> None:
    made = created(client, ada, is_active=False)
    path = f"/api/webhooks/{made['webhook_id']}"
    assert client.post(f"{path}/test", headers=ada).status_code == 409
    client.patch(path, headers=ada, json={"is_active": True})
    ping = client.post(f"{path}/test", headers=ada)
    assert ping.status_code == 202
    assert (ping.json()["event"], ping.json()["status"], ping.json()["num_attempts"]) == ("webhook.ping", "pending", 0)
    client.patch(path, headers=ada, json={"is_active": False})
    client.patch(path, headers=ada, json={"is_active": True})
    newest = client.post(f"{path}/test", headers=ada).json()
    page = client.get(f"{path}/deliveries", headers=ada, params={"limit": 1}).json()
    assert (page["deliveries"], page["count"]) == ([newest], 2)
    rest = client.get(f"{path}/deliveries", headers=ada, params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [each["delivery_id"] for each in rest["deliveries"]] == [ping.json()["delivery_id"]]
    assert rest["next_cursor"] is None
    failed = client.get(f"{path}/deliveries", headers=ada, params={"status": "failed"}).json()["deliveries"]
    assert [each["delivery_id"] for each in failed] == [ping.json()["delivery_id"]]
    again = client.post(f"{path}/deliveries/{failed[0]['delivery_id']}/redeliver", headers=ada)
    assert (again.status_code, again.json()["status"], again.json()["ended_at"]) == (202, "pending", None)
    assert client.get(f"{path}/deliveries", headers=ada, params={"cursor": "x"}).status_code == 400


@pytest.mark.parametrize(("url", "words"), [(url, words) for url, words in REFUSED if url])
def test_urls_that_are_refused(client: TestClient, ada: dict[str, str], url: str, words: str) -> None:
    response = client.post("/api/webhooks", headers=ada, json={"url": url})
    # Those that are too long for the field are named as such.
    assert (response.status_code, words in response.json()["detail"]) == (400, True) or response.status_code == 422
    assert "secret" not in response.json()["detail"]


@pytest.mark.parametrize("address", [address for address, _ in NOT_PUBLIC if "%" not in address])
def test_addresses_that_are_refused(client: TestClient, ada: dict[str, str], address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    response = client.post("/api/webhooks", headers=ada, json={"url": f"https://{host}/"})
    assert response.status_code == 400
    assert "SIENN_WEBHOOK_ALLOWED_NETWORKS names networks" in response.json()["detail"]


@pytest.mark.parametrize("host", ["inside.example.org", "nothing.example.org", "localhost"])
def test_names_that_are_refused(client: TestClient, ada: dict[str, str], host: str) -> None:
    response = client.post("/api/webhooks", headers=ada, json={"url": f"https://{host}/"})
    assert response.status_code == 400
    assert response.json()["detail"].startswith(f"{host} has no address, or one that isn't public")


def test_an_owner_whose_names_are_never_answered_keeps_nobody_else_waiting(
    tmp_path: Path, tracker: InProcessTracker, ada: dict[str, str]
) -> None:
    is_over = threading.Event()

    def look_up(host: str, _: int) -> tuple[Address, ...]:
        if host.startswith("slow"):
            is_over.wait(20.0)
        return (ipaddress.ip_address("93.184.216.34"),)

    hasty = Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY, webhook_timeout_s=0.05)
    resolver = SystemResolver(max_lookups=4, max_per_caller=2, look_up=look_up)
    with TestClient(create_app(fake_backends(hasty, tracker=tracker, resolver=resolver))) as client:
        for number in range(6):
            response = client.post("/api/webhooks", headers=ada, json={"url": f"https://slow-{number}.example.org/"})
            assert (response.status_code, response.headers["retry-after"]) == (503, "30")
            assert "nobody could say within 0.05 s what slow" in response.json()["detail"]
        # An owner who has nothing to do with it.
        assert resolver.begin("hooks.example.org", 443, "bob").result(20.0)
        assert not resolver.begin("hooks.example.org", 443, "ada").done()
        is_over.set()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": 1},
        {"url": ""},
        {"url": URL, "events": []},
        {"url": URL, "events": ["job.started"]},
        {"url": URL, "events": ["webhook.ping"]},
        {"url": URL, "events": ["job.failed", "job.failed"]},
        {"url": URL, "description": "a\nb"},
        {"url": URL, "secret": "whsec_mine"},
        {"url": URL, "owner": "bob"},
    ],
)
def test_other_bodies_are_refused(client: TestClient, ada: dict[str, str], body: dict[str, Any]) -> None:
    assert client.post("/api/webhooks", headers=ada, json=body).status_code == 422


def test_the_end_of_a_job_reaches_its_owner_even_after_a_restart(tmp_path: Path) -> None:
    """The tracker goes between the change and the delivery; the next one delivers what waits."""
    chosen = {"webhook_allowed_networks": ("127.0.0.0/8",), "webhook_allow_http": True}
    settings = Settings(env="test", home=tmp_path / "home", **chosen)  # type: ignore[arg-type]
    first = InProcessTracker(settings)  # it looks after nothing by itself
    with receiving() as receiver, TestClient(create_app(fake_backends(settings, tracker=first))) as client:
        made = client.post("/api/webhooks", json={"url": receiver.url}).json()
        first.put(job_record())
        assert client.post("/api/jobs/job-1/cancel").status_code == 200
        first.actor.close()
        with running_service(tmp_path, **chosen) as service:
            received = receiver.next()
            event = Webhook(made["secret"]).verify(received.body, received.headers)
            assert (event["type"], event["data"]["job_id"]) == ("job.cancelled", "job-1")
            # It delivers what happens from now on as well.
            service.tracker.ping_webhook(made["webhook_id"])
            assert receiver.next().headers["webhook-id"] != received.headers["webhook-id"]
            service.tracker._deliverer.join()
            query = DeliveryQuery(DeliveryStatus.DELIVERED)
            assert service.tracker.webhook_deliveries(made["webhook_id"], query).count == 2
            samples = {each.labels: each.value for each in service.tracker.metric_samples() if "webhook" in each.name}
            assert samples == {(("result", "delivered"),): 2.0}
            assert "webhooks" in {beat.what for beat in service.tracker.health().heartbeats}
