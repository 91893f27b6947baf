"""Deliveries to a real receiver on loopback, step by step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from sienn_ray.errors import CapacityError, DestinationError
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.webhook_deliverer import DeliveryRules, WebhookDeliverer, delivery_rules
from sienn_ray.jobs.webhook_schema import DeliveryBounds, DeliveryQuery, DeliveryRecord, DeliveryStatus, DueDelivery
from sienn_ray.outbound.addresses import AddressRules
from sienn_ray.outbound.client import OutboundClient, OutboundResponse
from sienn_ray.outbound.rules import OutboundRules
from sienn_ray.settings import Settings
from tests.support.fakes_jobs import Clock, Seconds, dataset_record, job_record
from tests.support.fakes_webhooks import OTHER_SECRET, SECRET, webhook_record
from tests.support.receiver import FakeResolver, Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def clock() -> Clock:
    """It begins now: a receiver takes nothing that is older than five minutes."""
    clock = Clock()
    clock.now = utc_now()
    return clock


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/sienn.db", clock)
    store.datasets.add(dataset_record())
    yield store
    store.close()


class Deliveries:
    """A deliverer, and hands to have it work."""

    def __init__(self, store: Store, clock: Clock, sender: Any = None, **rules: Any) -> None:
        self.store, self.clock = store, clock
        self.resolver = FakeResolver()
        limits = OutboundRules(AddressRules.parsed(["127.0.0.1"]), allows_http=True, timeout_s=5.0)
        self.seconds = Seconds()
        self.deliverer = WebhookDeliverer(
            store.webhook_deliveries,
            sender or OutboundClient(limits, self.resolver),
            DeliveryRules(**rules),
            clock,
            self.seconds,
            lambda: 0.5,
        )

    def step(self) -> DeliveryRecord:
        """Have it look once, and wait for what it has begun; gives the newest delivery."""
        self.deliverer.step()
        self.deliverer.join()
        return self.store.webhooks.deliveries("hook-1", DeliveryQuery()).deliveries[0]


@pytest.fixture
def deliveries(store: Store, clock: Clock) -> Deliveries:
    return Deliveries(store, clock)


def hook(store: Store, url: str, **fields: Any) -> None:
    store.webhooks.add(webhook_record(url=url, **fields), SECRET, 10)


def test_the_end_of_a_job_reaches_a_receiver_that_checks_who_has_sent_it(
    store: Store, deliveries: Deliveries, receiver: Receiver
) -> None:
    hook(store, receiver.url)
    store.jobs.add(job_record(name="Fähre ⛴"))
    store.jobs.cancel("job-1")
    done = deliveries.step()
    assert (done.status, done.response_status, done.response_text) == (DeliveryStatus.DELIVERED, 200, "thank you")
    assert done.duration_s is not None
    (received,) = receiver.requests
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == done.id
    # The reference implementation of the specification.
    body = Webhook(SECRET).verify(received.body, received.headers)
    assert (body["type"], body["data"]["job_id"], body["data"]["name"]) == ("job.cancelled", "job-1", "Fähre ⛴")
    for secret, content in ((OTHER_SECRET, received.body), (SECRET, received.body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(content, received.headers)


def test_both_secrets_are_good_after_a_rotation(store: Store, deliveries: Deliveries, receiver: Receiver) -> None:
    hook(store, receiver.url)
    store.webhooks.rotate_secret("hook-1", OTHER_SECRET, 3600.0)
    store.webhooks.ping("hook-1")
    deliveries.step()
    for secret in (SECRET, OTHER_SECRET):
        ping = Webhook(secret).verify(receiver.requests[0].body, receiver.requests[0].headers)
        assert (ping["type"], ping["data"]) == ("webhook.ping", {"webhook_id": "hook-1"})


def test_a_receiver_that_flaps_gets_the_same_again(
    store: Store, deliveries: Deliveries, receiver: Receiver, clock: Clock
) -> None:
    receiver.statuses = [500, 500, 200]
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    for pause_s, error in ((5.0, "the receiver answered 500"), (15.0, "the receiver answered 500"), (0.0, None)):
        attempted = deliveries.step()
        assert attempted.error == error
        assert attempted.due_at == (clock() + timedelta(seconds=pause_s) if error else None)
        deliveries.step()  # nothing is due
        clock.advance(pause_s)
    assert attempted.num_attempts == 3
    ids = {each.headers["webhook-id"] for each in receiver.requests}
    assert len(receiver.requests) == 3
    assert ids == {attempted.id}
    times = [int(each.headers["webhook-timestamp"]) for each in receiver.requests]
    assert times[2] - times[0] == 20
    assert len({each.headers["webhook-signature"] for each in receiver.requests}) == 3


def test_pauses_grow_to_hours_and_then_it_is_given_up(
    store: Store, deliveries: Deliveries, receiver: Receiver, clock: Clock
) -> None:
    receiver.statuses = [503]
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    pauses = []
    while (record := deliveries.step()).status is DeliveryStatus.PENDING:
        assert record.due_at is not None
        pauses.append((record.due_at - clock()).total_seconds())
        clock.now = record.due_at
    assert pauses == [5, 15, 45, 135, 405, 1215, 3645, 10935, 21600, 21600, 21600]
    assert (record.num_attempts, record.status) == (12, DeliveryStatus.FAILED)


@pytest.mark.parametrize(
    ("draw", "pause_s"),
    [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)],
)
def test_what_failed_together_is_not_tried_again_together(
    store: Store, clock: Clock, receiver: Receiver, draw: float, pause_s: float
) -> None:
    receiver.statuses = [500]
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    deliveries = Deliveries(store, clock)
    deliveries.deliverer._draw = lambda: draw
    record = deliveries.step()
    assert record.due_at is not None
    assert (record.due_at - clock()).total_seconds() == pytest.approx(pause_s)


@pytest.mark.parametrize(
    ("value", "pause_s"),
    [
        ("120", 120.0),
        ("1", 5.0),
        ("999999999999999999999999", 86400.0),
        ("soon", 5.0),
        ("-5", 5.0),
        ("", 5.0),
        ("²", 5.0),
        ("Tue, 04 Mar 2025 07:06:07 GMT", 3599.11),
        ("Tue, 04 Mar 2025 05:00:00 GMT", 5.0),
        ("Mon, 01 Jan 99999999999999 00:00:00 GMT", 5.0),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", 5.0),
        ("Mon, 01 Jan 0001 00:00:00 +2300", 5.0),
    ],
)
def test_a_receiver_says_when_to_come_back(
    store: Store, deliveries: Deliveries, receiver: Receiver, clock: Clock, value: str, pause_s: float
) -> None:
    clock.now = Clock().now
    receiver.statuses, receiver.headers = [429], {"Retry-After": value}
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    record = deliveries.step()
    assert record.due_at is not None
    assert (record.due_at - clock()).total_seconds() == pytest.approx(pause_s, abs=0.01)


def test_a_redirect_is_a_failure_that_says_so(store: Store, deliveries: Deliveries, receiver: Receiver) -> None:
    with receiving() as inside:
        receiver.statuses, receiver.headers = [302], {"Location": inside.url}
        hook(store, receiver.url)
        store.webhooks.ping("hook-1")
        record = deliveries.step()
    assert record.error == (
        "the receiver answered 302; redirects aren't followed, so the webhook needs the URL that it leads to"
    )
    assert inside.requests == []


def test_gone_is_gone(store: Store, deliveries: Deliveries, receiver: Receiver) -> None:
    receiver.statuses = [410]
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    assert deliveries.step().status is DeliveryStatus.FAILED
    assert not store.webhooks.get("hook-1").is_active


def test_a_receiver_that_hangs_holds_nothing_up_but_its_own_place(
    store: Store, deliveries: Deliveries, receiver: Receiver
) -> None:
    release = threading.Event()
    with receiving(act=lambda _: release.wait(20.0) and None) as hanging:
        hook(store, hanging.url)
        hook(store, receiver.url, webhook_id="hook-2")
        for _ in range(4):
            store.webhooks.ping("hook-1")
        store.webhooks.ping("hook-2")
        deliveries.deliverer.step()
        receiver.next()
        assert deliveries.deliverer.needs_close_look()
        deliveries.deliverer.step()
        under_way = [each.webhook_id for each, _ in deliveries.deliverer._under_way.values()]
        assert under_way.count("hook-1") == 2  # and no third one
        release.set()
        deliveries.deliverer.join()
    assert not deliveries.deliverer.needs_close_look()


def test_attempts_at_once_are_bounded(store: Store, clock: Clock) -> None:
    begun, release = threading.Semaphore(0), threading.Event()

    class Hanging:
        num_open = most = 0

        def post(self, *_: Any) -> OutboundResponse:
            self.num_open += 1
            self.most = max(self.most, self.num_open)
            begun.release()
            assert release.wait(20.0)
            self.num_open -= 1
            return OutboundResponse(200, {}, b"")

    sender = Hanging()
    deliveries = Deliveries(store, clock, sender, max_concurrent=3)
    for number in range(1, 6):
        hook(store, "https://x.example/", webhook_id=f"hook-{number}", owner=f"owner-{number}")
        store.webhooks.ping(f"hook-{number}")
    deliveries.deliverer.step()
    for _ in range(3):
        assert begun.acquire(timeout=20.0)
    deliveries.deliverer.step()
    release.set()
    deliveries.deliverer.join()
    deliveries.step()
    assert sender.most == 3
    assert deliveries.store.webhooks.deliveries("hook-5", DeliveryQuery(DeliveryStatus.DELIVERED)).count == 1


def test_an_owner_with_many_slow_webhooks_holds_nobody_else_up(
    store: Store, deliveries: Deliveries, receiver: Receiver, clock: Clock
) -> None:
    release = threading.Event()
    with receiving(act=lambda _: release.wait(20.0) and None) as hanging:
        for number in range(1, 10):
            hook(store, hanging.url, webhook_id=f"hook-{number}", owner="ada")
            for _ in range(2):
                store.webhooks.ping(f"hook-{number}")
        deliveries.deliverer.step()
        clock.advance(1.0)
        hook(store, receiver.url, webhook_id="bobs", owner="bob")
        store.webhooks.ping("bobs")
        deliveries.deliverer.step()
        assert receiver.next()
        assert len([each for each, _ in deliveries.deliverer._under_way.values() if each.owner == "ada"]) == 4
        release.set()
        deliveries.deliverer.join()


def test_a_thread_that_cannot_be_started_takes_no_place(
    store: Store, deliveries: Deliveries, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hook(store, receiver.url)
    for _ in range(2):
        store.webhooks.ping("hook-1")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start"):
                deliveries.deliverer.step()
    assert not deliveries.deliverer.needs_close_look()
    deliveries.step()
    assert store.webhooks.deliveries("hook-1", DeliveryQuery(DeliveryStatus.DELIVERED)).count == 2


@pytest.mark.parametrize(("max_concurrent", "per_owner"), [(1, 2), (4, 2), (16, 4), (256, 64)])
def test_one_owner_has_a_part_of_all_places(max_concurrent: int, per_owner: int) -> None:
    assert DeliveryRules(max_concurrent=max_concurrent).bounds == DeliveryBounds(max_concurrent, per_owner, 2)


def test_of_a_huge_answer_the_beginning_is_kept(store: Store, deliveries: Deliveries) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    with receiving(act=endless) as receiver:
        hook(store, receiver.url)
        store.webhooks.ping("hook-1")
        record = deliveries.step()
    assert (record.status, record.response_text) == (DeliveryStatus.DELIVERED, "x" * 1024)


def test_a_name_that_means_something_else_later_is_asked_no_more(
    store: Store, deliveries: Deliveries, receiver: Receiver, clock: Clock
) -> None:
    deliveries.resolver.names["evil.example"] = [["127.0.0.1"], ["10.0.0.1"]]
    hook(store, receiver.url.replace("127.0.0.1", "evil.example"))
    store.webhooks.ping("hook-1")
    assert deliveries.step().status is DeliveryStatus.DELIVERED
    store.webhooks.ping("hook-1")
    assert deliveries.step().error == "evil.example has no address, or one that isn't public"
    assert len(receiver.requests) == 1


def test_an_attempt_that_was_cut_off_is_made_again_by_the_next_tracker(
    tmp_path: Path, store: Store, clock: Clock, receiver: Receiver
) -> None:
    """The tracker is killed between the change and the delivery, and once more in the middle of it."""
    hook(store, receiver.url)
    store.jobs.add(job_record())
    store.jobs.cancel("job-1")
    lost = Lost(store)
    lost_store: Any = lost
    cut_off = Deliveries(store, clock)
    cut_off.deliverer._store = lost_store  # nothing is written any more
    cut_off.deliverer.step()
    cut_off.deliverer.join()
    successor = Store(f"sqlite:///{tmp_path}/sienn.db", clock)
    done = Deliveries(successor, clock).step()
    assert done.status is DeliveryStatus.DELIVERED
    assert [each.headers["webhook-id"] for each in receiver.requests] == [done.id, done.id]
    successor.close()


class Lost:
    """A store that is read, and in which nothing can be noted."""

    def __init__(self, store: Store) -> None:
        self._store = store.webhook_deliveries

    def due(self, *args: Any) -> list[DueDelivery]:
        return self._store.due(*args)

    def note(self, *_: Any) -> None:
        raise CapacityError("the job database can't be used at the moment")

    def delete_old(self, _: float) -> int:
        return 0


def test_while_nothing_can_be_noted_a_receiver_is_left_alone(store: Store, clock: Clock, receiver: Receiver) -> None:
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    deliveries = Deliveries(store, clock)
    lost: Any = Lost(store)
    deliveries.deliverer._store = lost
    for _ in range(5):
        deliveries.step()
    assert len(receiver.requests) == 1
    deliveries.seconds.advance(1.0)
    deliveries.deliverer._store = store.webhook_deliveries
    assert deliveries.step().status is DeliveryStatus.DELIVERED


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DestinationError("10.0.0.1 is no public address (private)"), r"10.0.0.1 is no public address \(private\)"),
        (ValueError("nobody thought of it"), "a fault of the service; its log has the details"),
    ],
)
def test_no_error_ends_the_others(store: Store, clock: Clock, error: Exception, words: str) -> None:
    class Failing:
        def post(self, *_: Any) -> OutboundResponse:
            raise error

    hook(store, "https://x.example/")
    store.webhooks.ping("hook-1")
    record = Deliveries(store, clock, Failing()).step()
    assert record.error is not None
    assert record.error == words.replace("\\", "")
    assert record.status is DeliveryStatus.PENDING


@pytest.mark.parametrize(
    "response",
    [
        OutboundResponse(200, {"retry-after": "Mon, 01 Jan 99999999999999 00:00:00 GMT"}, b"ok"),
        OutboundResponse(500, {"retry-after": object()}, b"ok"),  # type: ignore[dict-item]
        OutboundResponse(200, {}, None),  # type: ignore[arg-type]
    ],
)
def test_an_answer_that_cannot_be_read_is_noted_all_the_same(
    store: Store, clock: Clock, response: OutboundResponse
) -> None:
    class Answering:
        num_posts = 0

        def post(self, *_: Any) -> OutboundResponse:
            self.num_posts += 1
            return response

    hook(store, "https://x.example/")
    store.webhooks.ping("hook-1")
    sender = Answering()
    deliveries = Deliveries(store, clock, sender, max_attempts=2)
    while (record := deliveries.step()).due_at is not None:
        assert sender.num_posts <= 2
        clock.now = record.due_at
        deliveries.seconds.advance(60.0)
    assert record.num_attempts == sender.num_posts
    assert record.status is (DeliveryStatus.DELIVERED if record.response_status == 200 else DeliveryStatus.FAILED)


def test_old_deliveries_are_swept_once_an_hour(store: Store, clock: Clock, receiver: Receiver) -> None:
    hook(store, receiver.url)
    store.webhooks.ping("hook-1")
    deliveries = Deliveries(store, clock, lifetime_s=60.0)
    deliveries.step()
    clock.advance(61.0)
    deliveries.step()
    deliveries.seconds.advance(3600.0)
    deliveries.deliverer.step()
    assert store.webhooks.deliveries("hook-1", DeliveryQuery()).count == 0


def test_limits_are_those_of_settings(tmp_path: Path) -> None:
    settings = Settings(
        env="test",
        home=tmp_path,
        webhook_max_attempts=3,
        max_concurrent_webhooks=4,
        webhook_give_up_after_s=5.0,
        webhook_delivery_lifetime_s=6.0,
    )
    assert delivery_rules(settings) == DeliveryRules(3, 4, 5.0, 6.0)
    assert delivery_rules(Settings(env="test", home=tmp_path)) == DeliveryRules()


def test_a_body_is_sent_as_it_is_kept(store: Store, deliveries: Deliveries, receiver: Receiver) -> None:
    hook(store, receiver.url)
    store.jobs.add(job_record(name='"\u2028</script>'))
    store.jobs.cancel("job-1")
    (waiting,) = store.webhook_deliveries.due(DeliveryBounds(1, 1, 1), ())
    deliveries.step()
    assert receiver.requests[0].body == waiting.body.encode()
    assert waiting.body.isascii()
    assert json.loads(waiting.body)["data"]["name"] == '"\u2028</script>'
