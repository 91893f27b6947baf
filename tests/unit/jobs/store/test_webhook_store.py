"""Webhooks and their deliveries in the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.api.schemas.exports import ExportModelResponse
from sienn_ray.api.schemas.jobs import JobSummary
from sienn_ray.errors import ConflictError, FailureReason, InvalidInputError, NotFoundError
from sienn_ray.jobs.export_schema import ExportFailure
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import webhook_outbox
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import webhook_deliveries, webhooks
from sienn_ray.jobs.webhook_schema import (
    AttemptResult,
    DeliveryBounds,
    DeliveryQuery,
    DeliveryStatus,
    DueDelivery,
    WebhookChanges,
    WebhookEvent,
)
from sienn_ray.storage import FileEntry
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import Clock, job_record, run_summary
from tests.support.fakes_webhooks import OTHER_SECRET, SECRET, webhook_record

SUCCESS = AttemptResult(200, "ok", 0.25)
FAILURE = AttemptResult(500, "oh", 0.5, error="the receiver answered 500", retry_in_s=5.0)
LAST_FAILURE = AttemptResult(500, "oh", 0.5, error="the receiver answered 500")


def hook(store: Store, webhook_id: str = "hook-1", **fields: Any) -> None:
    store.webhooks.add(webhook_record(webhook_id, **fields), SECRET, 1000)


def due(store: Store) -> list[DueDelivery]:
    return store.webhook_deliveries.due(DeliveryBounds(100, 100, 100), ())


def told(store: Store) -> list[dict[str, Any]]:
    """What waits to be sent, in order."""
    return [json.loads(each.body) for each in due(store)]


def running_job(store: Store, **fields: Any) -> None:
    store.jobs.add(job_record(**fields))
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1, submission_id="sienn-job-1-1")


# What is told


def test_each_end_of_a_job_is_told_in_its_transaction(store: Store) -> None:
    hook(store)
    running_job(store, name="Ferry", labels={"team": "a"})
    store.jobs.pause("job-1")
    store.jobs.note_pause("job-1", 1)
    store.jobs.resume("job-1")
    store.jobs.cancel("job-1")
    store.jobs.note_stop("job-1")
    store.jobs.retry("job-1")
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=2)
    reason = FailureReason.DIVERGED
    store.jobs.end("job-1", 2, status=JobStatus.FAILED, failure_reason=reason, message="not a number")
    store.jobs.retry("job-1")
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=3)
    store.jobs.end("job-1", 3, status=JobStatus.COMPLETED, summary=run_summary(eval_loss=float("nan")), progress=100)
    bodies = told(store)
    assert [body["type"] for body in bodies] == ["job.paused", "job.cancelled", "job.failed", "job.completed"]
    assert [body["data"]["status"] for body in bodies] == ["paused", "cancelled", "failed", "completed"]
    assert (bodies[2]["data"]["failure_reason"], bodies[2]["data"]["message"]) == ("diverged", "not a number")
    assert bodies[3]["timestamp"] == bodies[3]["data"]["updated_at"]
    completed = {"name": "Ferry", "labels": {"team": "a"}, "progress": 100, "train_loss": 0.523, "eval_loss": None}
    assert completed.items() <= bodies[3]["data"].items()


def test_fields_are_those_of_the_rest_api(store: Store) -> None:
    hook(store)
    running_job(store)
    store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
    store.exports.request(export_record("job-1", id="export-1"))
    store.exports.start("export-1")
    store.exports.complete("export-1", 1, FileEntry("model.gguf", 3, "0" * 64))
    of_job, of_export = (body["data"] for body in told(store))
    assert of_job.keys() == {*JobSummary.model_fields, "failure_reason", "train_loss", "eval_loss"}
    assert of_export.keys() < ExportModelResponse.model_fields.keys()
    assert not of_export.keys() & {"download_url"}


def test_ends_of_exports_are_told(store: Store) -> None:
    hook(store)
    running_job(store)
    store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
    for number, export_id in enumerate(("good", "bad")):
        store.exports.request(export_record("job-1", id=export_id))
        store.exports.start(export_id)
        if number == 0:
            store.exports.complete(export_id, 1, FileEntry("model.gguf", 3, "0" * 64))
        else:
            store.exports.fail(export_id, 1, ExportFailure.STORAGE_FULL, "no room")
    store.exports.request(export_record("job-1", id="good"))  # it is there, and nothing happens
    bodies = told(store)[1:]
    assert [(body["type"], body["data"]["export_id"]) for body in bodies] == [
        ("export.completed", "good"),
        ("export.failed", "bad"),
    ]
    assert bodies[0]["data"]["file_name"] == "model.gguf"
    assert bodies[1]["data"]["failure_reason"] == "storage_full"


def test_who_is_told_is_the_owner_who_asks_for_it_and_listens(store: Store) -> None:
    hook(store, "all", owner="ada")
    hook(store, "other-events", owner="ada", events=(WebhookEvent.JOB_FAILED, WebhookEvent.EXPORT_FAILED))
    hook(store, "inactive", owner="ada", is_active=False)
    hook(store, "others", owner="bob")
    hook(store, "admins")
    running_job(store, owner="ada")
    store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
    store.exports.request(export_record("job-1", id="export-1"))
    store.exports.start("export-1")
    store.exports.complete("export-1", 1, FileEntry("model.gguf", 3, "0" * 64))
    assert [each.webhook_id for each in due(store)] == ["all", "all"]


def test_what_is_undone_is_not_told(store: Store) -> None:
    hook(store)
    running_job(store)

    def end_and_fail() -> None:
        with store.database.together():
            store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        end_and_fail()
    assert told(store) == []


def test_a_repeat_of_an_end_is_told_once(store: Store) -> None:
    hook(store)
    running_job(store)
    for _ in range(2):
        store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
    assert len(told(store)) == 1


def test_what_waits_outlives_the_tracker(store: Store, database_url: str, clock: Clock) -> None:
    hook(store)
    running_job(store)
    store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
    successor = Store(database_url, clock)  # the first one was killed
    assert told(successor) == told(store)
    assert len(told(successor)) == 1
    successor.close()


def test_deliveries_of_one_webhook_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_outbox, "MAX_DELIVERIES", 3)
    hook(store)
    hook(store, "hook-2")
    store.webhooks.ping("hook-2")
    ids = [store.webhooks.ping("hook-1").id for _ in range(3)]
    second = next(each for each in due(store) if each.id == ids[1])
    store.webhook_deliveries.note(second, SUCCESS, 60.0)
    ids.append(store.webhooks.ping("hook-1").id)  # what has ended goes first
    assert {each.id for each in due(store) if each.webhook_id == "hook-1"} == {ids[0], ids[2], ids[3]}
    ids.append(store.webhooks.ping("hook-1").id)
    assert {each.id for each in due(store) if each.webhook_id == "hook-1"} == {ids[2], ids[3], ids[4]}
    assert store.webhooks.deliveries("hook-2", DeliveryQuery()).count == 1
    assert counted(store) == {"delivered": 1.0, "dropped": 1.0}


def counted(store: Store) -> dict[str, float]:
    samples = store.metrics.samples()
    return {dict(each.labels)["result"]: each.value for each in samples if each.name.startswith("sienn_webhook")}


# Webhooks themselves


def test_webhooks_are_listed_by_owner_and_bounded(store: Store) -> None:
    hook(store, "hook-1", owner="ada")
    hook(store, "hook-2", owner="bob")
    hook(store, "hook-3", owner="ada")
    assert [each.id for each in store.webhooks.all("ada")] == ["hook-3", "hook-1"]
    assert len(store.webhooks.all()) == 3
    with pytest.raises(ConflictError, match="there are 2 webhooks and SIENN_MAX_WEBHOOKS of an owner is 2; delete one"):
        store.webhooks.add(webhook_record("hook-4", owner="ada"), SECRET, 2)
    assert store.webhooks.add(webhook_record("hook-1", owner="ada"), OTHER_SECRET, 2).id == "hook-1"  # a repeat
    store.webhooks.add(webhook_record("hook-4", owner="bob"), SECRET, 2)


def test_only_what_is_set_is_changed(store: Store, clock: Clock) -> None:
    hook(store, description="first")
    before = store.webhooks.get("hook-1")
    clock.advance(5.0)
    changed = store.webhooks.change("hook-1", WebhookChanges(events=(WebhookEvent.JOB_FAILED,)))
    assert changed == store.webhooks.get("hook-1")
    assert changed == before.model_copy(update={"events": (WebhookEvent.JOB_FAILED,), "updated_at": clock()})
    assert (
        store.webhooks.change("hook-1", WebhookChanges(description=None, url="https://b.example/")).description is None
    )
    assert store.webhooks.get("hook-1").url == "https://b.example/"


def test_deactivation_gives_up_what_waits(store: Store) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    store.webhooks.change("hook-1", WebhookChanges(is_active=False))
    assert due(store) == []
    (given_up,) = store.webhooks.deliveries("hook-1", DeliveryQuery()).deliveries
    assert (given_up.status, given_up.error) == (
        DeliveryStatus.FAILED,
        "its webhook was deactivated before it was delivered",
    )
    with pytest.raises(ConflictError, match="isn't active; activate it first"):
        store.webhooks.ping("hook-1")
    with pytest.raises(ConflictError, match="isn't active; activate it first"):
        store.webhooks.redeliver("hook-1", given_up.id)
    store.webhooks.change("hook-1", WebhookChanges(is_active=True))
    store.webhooks.redeliver("hook-1", given_up.id)
    assert [each.id for each in due(store)] == [given_up.id]


def test_a_rotated_secret_signs_beside_the_new_one_for_a_while(store: Store, clock: Clock) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    assert due(store)[0].secrets == (SECRET,)
    rotated = store.webhooks.rotate_secret("hook-1", OTHER_SECRET, 60.0)
    assert rotated == store.webhooks.get("hook-1")
    assert store.webhooks.rotate_secret("hook-1", OTHER_SECRET, 60.0) == rotated  # a repeat
    assert due(store)[0].secrets == (OTHER_SECRET, SECRET)
    clock.advance(60.0)
    assert due(store)[0].secrets == (OTHER_SECRET,)
    clock.advance(1.0)
    store.webhook_deliveries.delete_old(1e6)
    with store.database.reading() as connection:
        assert connection.execute(sa.select(webhooks.c.old_secret, webhooks.c.old_secret_until)).one() == (None, None)
    store.webhooks.rotate_secret("hook-1", SECRET, 0.0)
    assert due(store)[0].secrets == (SECRET,)


def test_a_deleted_webhook_takes_its_deliveries_along(store: Store) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    (waiting,) = due(store)
    store.webhooks.delete("hook-1")
    assert due(store) == []
    store.webhook_deliveries.note(waiting, SUCCESS, 60.0)  # it was under way
    with store.database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(webhook_deliveries)) == 0
    with pytest.raises(NotFoundError, match="Webhook hook-1 not found"):
        store.webhooks.get("hook-1")


# Attempts


def test_due_are_a_few_of_each_webhook(store: Store, clock: Clock) -> None:
    for webhook_id in ("hook-1", "hook-2"):
        hook(store, webhook_id)
    ids = [store.webhooks.ping("hook-1").id for _ in range(5)]
    clock.advance(1.0)
    ids.append(store.webhooks.ping("hook-2").id)

    def next_ones(limit: int, under_way: Sequence[DueDelivery] = ()) -> list[str]:
        bounds = DeliveryBounds(limit + len(under_way), 9, 2)
        return [each.id for each in store.webhook_deliveries.due(bounds, under_way)]

    assert next_ones(9) == [ids[0], ids[1], ids[5]]
    assert next_ones(2) == ids[:2]
    assert next_ones(0) == []
    first, second, *_ = due(store)
    assert next_ones(9, [first, second]) == [ids[5]]
    assert next_ones(9, [first]) == [ids[1], ids[5]]
    assert next_ones(1, [first, second]) == [ids[5]]


def test_what_is_under_way_takes_no_turn_of_what_waits(store: Store, clock: Clock) -> None:
    for number in range(3):
        hook(store, f"hook-{number}", owner=f"owner-{number}")
        store.webhooks.ping(f"hook-{number}")
        clock.advance(1.0)
    first, second, third = due(store)
    assert store.webhook_deliveries.due(DeliveryBounds(3, 2, 2), (first, second)) == [third]


def test_an_owner_with_many_slow_webhooks_keeps_nobody_waiting(store: Store, clock: Clock) -> None:
    bounds = DeliveryBounds(total=8, per_owner=4, per_webhook=2)
    for number in range(20):
        hook(store, f"slow-{number}", owner="ada")
        for _ in range(3):
            store.webhooks.ping(f"slow-{number}")
    clock.advance(60.0)
    hook(store, "bobs", owner="bob")
    hook(store, "carls", owner="carl")
    for _ in range(3):
        store.webhooks.ping("bobs")
    store.webhooks.ping("carls")

    def owners(under_way: Sequence[DueDelivery]) -> list[str]:
        return [each.owner for each in store.webhook_deliveries.due(bounds, under_way)]

    begun = store.webhook_deliveries.due(bounds, ())
    assert [each.owner for each in begun] == ["ada", "bob", "carl", "ada", "bob", "ada", "ada"]
    slow = [each for each in begun if each.owner == "ada"]
    assert owners(slow) == ["bob", "carl", "bob"]  # no more of the first one, though there is room
    store.webhooks.delete(slow[0].webhook_id)
    assert owners(slow) == ["bob", "carl", "bob"]  # nor by deleting what is under way
    assert owners(slow[1:]) == ["bob", "carl", "bob", "ada"]  # whoever has the fewest comes first
    assert store.webhook_deliveries.due(DeliveryBounds(4, 4, 2), slow) == []


def test_a_failed_attempt_waits_for_the_next(store: Store, clock: Clock) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    store.webhook_deliveries.note(due(store)[0], FAILURE, 60.0)
    assert due(store) == []
    (waiting,) = store.webhooks.deliveries("hook-1", DeliveryQuery()).deliveries
    assert (waiting.status, waiting.num_attempts, waiting.response_status) == (DeliveryStatus.PENDING, 1, 500)
    assert (waiting.response_text, waiting.duration_s, waiting.error) == ("oh", 0.5, "the receiver answered 500")
    assert store.webhooks.get("hook-1").failing_since == clock()
    clock.advance(5.0)
    (again,) = due(store)
    assert again.num_tries == 1
    store.webhook_deliveries.note(again, SUCCESS, 60.0)
    (done,) = store.webhooks.deliveries("hook-1", DeliveryQuery()).deliveries
    assert (done.status, done.num_attempts, done.error, done.due_at) == (DeliveryStatus.DELIVERED, 2, None, None)
    assert done.ended_at == clock()
    assert store.webhooks.get("hook-1").failing_since is None
    assert counted(store) == {"failed": 1.0, "delivered": 1.0}


def test_the_last_attempt_gives_up_and_a_person_begins_anew(store: Store) -> None:
    hook(store)
    delivery_id = store.webhooks.ping("hook-1").id
    store.webhook_deliveries.note(due(store)[0], LAST_FAILURE, 60.0)
    assert store.webhooks.deliveries("hook-1", DeliveryQuery(DeliveryStatus.FAILED)).count == 1
    assert counted(store) == {"failed": 1.0, "given_up": 1.0}
    again = store.webhooks.redeliver("hook-1", delivery_id)
    assert (again.status, again.num_attempts, again.ended_at) == (DeliveryStatus.PENDING, 1, None)
    (waiting,) = due(store)
    assert (waiting.id, waiting.num_tries) == (delivery_id, 0)


def test_a_receiver_that_is_gone_ends_its_webhook(store: Store) -> None:
    hook(store)
    for _ in range(2):
        store.webhooks.ping("hook-1")
    gone = AttemptResult(410, "", 0.1, error="the receiver answered 410", is_gone=True)
    store.webhook_deliveries.note(due(store)[0], gone, 1e9)
    record = store.webhooks.get("hook-1")
    assert not record.is_active
    assert record.inactive_reason == "the receiver answered 410 Gone, and wants nothing any more"
    assert store.webhooks.deliveries("hook-1", DeliveryQuery(DeliveryStatus.FAILED)).count == 2
    active = store.webhooks.change("hook-1", WebhookChanges(is_active=True))
    assert (active.is_active, active.inactive_reason, active.failing_since) == (True, None, None)


def test_a_receiver_that_fails_for_long_ends_its_webhook_with_a_word(store: Store, clock: Clock) -> None:
    hook(store)
    for _ in range(3):
        store.webhooks.ping("hook-1")
    first, second, third = due(store)
    store.webhook_deliveries.note(first, FAILURE, 3600.0)
    clock.advance(3599.0)
    store.webhook_deliveries.note(second, FAILURE, 3600.0)
    assert store.webhooks.get("hook-1").is_active
    clock.advance(1.0)
    store.webhook_deliveries.note(third, LAST_FAILURE, 3600.0)
    record = store.webhooks.get("hook-1")
    assert not record.is_active
    expected = "every attempt has failed since 2025-03-04 06:06 UTC; the last: the receiver answered 500"
    assert record.inactive_reason == expected
    failed = store.webhooks.deliveries("hook-1", DeliveryQuery(DeliveryStatus.FAILED))
    assert [each.error for each in failed.deliveries] == [
        "the receiver answered 500",
        *[f"its webhook was deactivated: {expected}"] * 2,
    ]


def test_a_receiver_that_failed_long_ago_has_all_attempts_at_what_is_new(store: Store, clock: Clock) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    store.webhook_deliveries.note(due(store)[0], LAST_FAILURE, 3600.0)
    clock.advance(7200.0)  # nothing to be told meanwhile
    new = store.webhooks.ping("hook-1").id
    (first_attempt,) = due(store)
    store.webhook_deliveries.note(first_attempt, FAILURE, 3600.0)
    assert store.webhooks.get("hook-1").is_active
    clock.advance(5.0)
    (second_attempt,) = due(store)
    assert second_attempt.id == new
    store.webhook_deliveries.note(second_attempt, SUCCESS, 3600.0)
    assert store.webhooks.get("hook-1").failing_since is None


def test_another_url_is_another_receiver(store: Store, clock: Clock) -> None:
    hook(store)
    for _ in range(3):
        store.webhooks.ping("hook-1")
    first, second, third = due(store)
    store.webhook_deliveries.note(first, FAILURE, 3600.0)
    unchanged = store.webhooks.change("hook-1", WebhookChanges(url=first.url))
    assert unchanged.failing_since == clock()
    changed = store.webhooks.change("hook-1", WebhookChanges(url="https://b.example/"))
    assert changed.failing_since is None
    assert store.webhooks.get("hook-1") == changed
    # What was under way to the one before says nothing of this one.
    gone = AttemptResult(410, "", 0.1, error="the receiver answered 410", is_gone=True)
    store.webhook_deliveries.note(second, gone, 3600.0)
    assert store.webhooks.get("hook-1") == changed
    assert [each.id for each in due(store)] == [second.id, third.id]  # and it is yet to come here
    (waiting,) = (each for each in due(store) if each.id == third.id)
    store.webhook_deliveries.note(waiting, FAILURE, 3600.0)
    store.webhook_deliveries.note(third, SUCCESS, 3600.0)
    assert store.webhooks.get("hook-1").failing_since == clock()


@pytest.mark.parametrize("num_failures", [0, 2])
@pytest.mark.parametrize("result", [FAILURE, LAST_FAILURE])
def test_what_a_person_asks_for_during_an_attempt_outlives_it(
    store: Store, clock: Clock, num_failures: int, result: AttemptResult
) -> None:
    hook(store)
    delivery_id = store.webhooks.ping("hook-1").id
    for _ in range(num_failures):
        store.webhook_deliveries.note(due(store)[0], FAILURE, 3600.0)
        clock.advance(5.0)
    (under_way,) = due(store)
    clock.advance(1.0)
    asked = store.webhooks.redeliver("hook-1", delivery_id)
    clock.advance(3600.0)
    store.webhook_deliveries.note(under_way, result, 3600.0)
    (waiting,) = store.webhooks.deliveries("hook-1", DeliveryQuery()).deliveries
    assert (waiting.status, waiting.due_at, waiting.ended_at) == (DeliveryStatus.PENDING, asked.due_at, None)
    assert waiting.num_attempts == num_failures + 1
    assert [each.num_tries for each in due(store)] == [0]
    assert store.webhooks.get("hook-1").is_active
    assert counted(store) == {"failed": num_failures + 1.0}
    store.webhook_deliveries.note(under_way, SUCCESS, 3600.0)  # it has come after all
    assert due(store) == []


def test_what_was_ended_meanwhile_is_not_tried_again(store: Store) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    (under_way,) = due(store)
    store.webhooks.change("hook-1", WebhookChanges(is_active=False))
    store.webhook_deliveries.note(under_way, FAILURE, 3600.0)
    store.webhooks.change("hook-1", WebhookChanges(is_active=True))
    assert store.webhooks.deliveries("hook-1", DeliveryQuery(DeliveryStatus.FAILED)).count == 1


def test_old_deliveries_go(store: Store, clock: Clock) -> None:
    hook(store)
    for _ in range(2):
        store.webhooks.ping("hook-1")
    store.webhook_deliveries.note(due(store)[0], SUCCESS, 60.0)
    clock.advance(10.0)
    assert store.webhook_deliveries.delete_old(10.5) == 0
    assert store.webhook_deliveries.delete_old(9.5) == 1
    assert store.webhooks.deliveries("hook-1", DeliveryQuery()).count == 1  # what waits stays


def test_answers_are_kept_as_plain_text(store: Store) -> None:
    hook(store)
    store.webhooks.ping("hook-1")
    store.webhook_deliveries.note(due(store)[0], AttemptResult(200, "\x1b[31mred\x00\ud800", 0.1), 60.0)
    (record,) = store.webhooks.deliveries("hook-1", DeliveryQuery()).deliveries
    assert record.response_text == "red\ufffd\ufffd"


# Pages


def test_deliveries_come_in_pages(store: Store) -> None:
    hook(store)
    hook(store, "hook-2")
    ids = [store.webhooks.ping("hook-1").id for _ in range(5)]
    other = store.webhooks.ping("hook-2").id
    seen: list[str] = []
    cursor = None
    while True:
        page = store.webhooks.deliveries("hook-1", DeliveryQuery(limit=2, cursor=cursor))
        assert page.count == 5
        seen += [each.id for each in page.deliveries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert other not in seen
    with pytest.raises(InvalidInputError, match="cursor 'x' isn't one"):
        store.webhooks.deliveries("hook-1", DeliveryQuery(cursor="x"))


@pytest.mark.parametrize("delivery_id", ["none", "../x", "of-another"])
def test_a_delivery_is_looked_for_within_its_webhook(store: Store, delivery_id: str) -> None:
    hook(store)
    hook(store, "hook-2")
    other = store.webhooks.ping("hook-2").id
    with pytest.raises(NotFoundError, match=r"^Delivery .* not found"):
        store.webhooks.redeliver("hook-1", other if delivery_id == "of-another" else delivery_id)
