"""Changes that are asked for more than once, or too late."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.access.api_keys import ApiKeyRecord
from sienn_ray.access.principals import Scope
from sienn_ray.access.quotas import Quotas, QuotaState, QuotaUse
from sienn_ray.access.refresh_tokens import RefreshFault, RefreshOutcome
from sienn_ray.access.token_keys import PublicTokenKey
from sienn_ray.errors import ConflictError, TooLateError
from sienn_ray.jobs.change_requests import ChangeRequest
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store import request_store
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import change_requests
from sienn_ray.jobs.tracker_protocol import METHODS, READING, answer_type
from sienn_ray.jobs.webhook_schema import DeliveryRecord, WebhookEvent
from sienn_ray.training.reporting import RunCommand, RunProgress
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import MOMENT, Clock, dataset_record, job_record, stored_job
from tests.support.fakes_webhooks import webhook_record

CHANGING = sorted(METHODS.keys() - READING)


@pytest.fixture
def request_1(clock: Clock) -> ChangeRequest:
    """A request with half a minute to go."""
    return ChangeRequest("request-1", clock().timestamp() + 30.0)


def cancel(store: Store, request: ChangeRequest) -> JobRecord:
    job: JobRecord = store.requests.once(
        request, "cancel_job", answer_type("cancel_job"), partial(store.jobs.cancel, "job-1")
    )
    return job


def num_remembered(store: Store) -> int:
    with store.database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(change_requests)) or 0


def test_repeat_gets_the_first_answer(store: Store, request_1: ChangeRequest) -> None:
    store.jobs.add(job_record())
    first = cancel(store, request_1)
    store.jobs.retry("job-1")
    assert cancel(store, request_1) == first
    assert first.status is JobStatus.CANCELLED
    assert stored_job(store).status is JobStatus.PENDING


def test_other_request_is_another_wish(store: Store, request_1: ChangeRequest) -> None:
    store.jobs.add(job_record())
    cancel(store, request_1)
    with pytest.raises(ConflictError, match="already 'cancelled'"):
        cancel(store, ChangeRequest("request-2", request_1.deadline))


def test_request_asks_for_each_thing_once(store: Store, request_1: ChangeRequest) -> None:
    store.jobs.add(job_record())
    cancel(store, request_1)
    retry = partial(store.jobs.retry, "job-1")
    answer = store.requests.once(request_1, "retry_job", answer_type("retry_job"), retry)
    assert answer.status is JobStatus.PENDING


def test_too_late_is_not_at_all(store: Store, request_1: ChangeRequest, clock: Clock) -> None:
    store.jobs.add(job_record())
    clock.advance(30.5)
    with pytest.raises(TooLateError, match="nothing was changed; try again"):
        cancel(store, request_1)
    assert stored_job(store).status is JobStatus.PENDING
    assert num_remembered(store) == 0


def test_late_repeat_gets_the_first_answer(store: Store, request_1: ChangeRequest, clock: Clock) -> None:
    store.jobs.add(job_record())
    first = cancel(store, request_1)
    clock.advance(600.0)
    assert cancel(store, request_1) == first


def test_deadline_is_looked_at_when_it_is_its_turn_to_write(
    store: Store, request_1: ChangeRequest, clock: Clock
) -> None:
    store.jobs.add(job_record())
    errors = []

    def cancel_later() -> None:
        try:
            cancel(store, request_1)
        except TooLateError as error:
            errors.append(error)

    thread = threading.Thread(target=cancel_later)
    with store.database.writing():  # somebody writes for very long
        thread.start()
        clock.advance(31.0)
    thread.join()
    assert len(errors) == 1
    assert stored_job(store).status is JobStatus.PENDING


def test_answer_outlives_the_tracker(store: Store, request_1: ChangeRequest, database_url: str, clock: Clock) -> None:
    store.jobs.add(job_record())
    first = cancel(store, request_1)
    successor = Store(database_url, clock)  # the first one was killed
    assert cancel(successor, request_1) == first
    successor.close()


def test_error_undoes_the_change_and_is_not_remembered(store: Store, request_1: ChangeRequest) -> None:
    store.jobs.add(job_record())

    def cancel_and_fail() -> JobRecord:
        store.jobs.cancel("job-1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.requests.once(request_1, "cancel_job", answer_type("cancel_job"), cancel_and_fail)
    assert stored_job(store).status is JobStatus.PENDING
    assert cancel(store, request_1).status is JobStatus.CANCELLED


def test_part_of_a_change_that_fails_is_undone_alone(store: Store, request_1: ChangeRequest) -> None:
    store.jobs.add(job_record())

    def fail_inside() -> None:
        with store.database.writing() as connection:
            connection.execute(sa.text("UPDATE jobs SET name = 'half'"))
            raise ZeroDivisionError

    def change() -> JobRecord:
        with pytest.raises(ZeroDivisionError):
            fail_inside()
        return store.jobs.cancel("job-1")

    store.requests.once(request_1, "cancel_job", answer_type("cancel_job"), change)
    job = stored_job(store)
    assert (job.name, job.status) == (None, JobStatus.CANCELLED)


def test_change_sees_what_it_has_written(store: Store, request_1: ChangeRequest) -> None:
    def add_and_read() -> JobRecord:
        store.jobs.add(job_record())
        return store.jobs.get("job-1")

    assert store.requests.once(request_1, "add_job", answer_type("add_job"), add_and_read).queue_position == 1


def test_others_are_told_once_they_can_see_it(store: Store, request_1: ChangeRequest) -> None:
    store.jobs.add(job_record())
    seen: list[JobStatus] = []

    def cancel_and_tell() -> JobRecord:
        job = store.jobs.cancel("job-1")
        store.database.after_commit(lambda: seen.append(stored_job(store).status))
        assert seen == []
        return job

    store.requests.once(request_1, "cancel_job", answer_type("cancel_job"), cancel_and_tell)
    assert seen == [JobStatus.CANCELLED]


def test_remembered_answers_are_bounded(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(numbers: range) -> None:
        for number in numbers:
            request = ChangeRequest(f"request-{number}", clock().timestamp() + 30.0)
            store.requests.once(request, "add_metrics", answer_type("add_metrics"), lambda: None)

    ask(range(40))
    clock.advance(3601.0)
    ask(range(40, 64))
    assert num_remembered(store) == 24  # those of an hour ago are gone
    monkeypatch.setattr(request_store, "MAX_ANSWERS", 20)
    ask(range(64, 128))
    assert num_remembered(store) == 20


ANSWERS: list[Any] = [
    dataset_record(preview=[{"text": "ß", "n": 1.5}], duplicate_of="dataset-0"),
    job_record(labels={"a": "b"}, run=RunProgress(current_loss=0.5, time_left_s=0.0), attempt_base=1),
    export_record(),
    ApiKeyRecord(
        id="key-1",
        prefix="a",
        sha256="b",
        name="c",
        owner="ada",
        scopes=frozenset({Scope.READ, Scope.TRAIN}),
        created_at=MOMENT,
    ),
    PublicTokenKey(kid="key-1", x="a", y="b", created_at=MOMENT),
    RefreshOutcome(fault=RefreshFault.REUSED),
    webhook_record(events=(WebhookEvent.JOB_PAUSED,), failing_since=MOMENT),
    DeliveryRecord(id="msg_1", webhook_id="hook-1", event=WebhookEvent.PING, created_at=MOMENT, duration_s=0.5),
    QuotaState("ada", Quotas(max_exports=5), Quotas(max_exports=5, max_pending_jobs=1), QuotaUse(1, 2, 3, 4, 5)),
    RunCommand.PAUSE,
    True,
    2,
    None,
]


@pytest.mark.parametrize("method", CHANGING)
def test_every_answer_is_the_same_when_it_is_remembered(store: Store, request_1: ChangeRequest, method: str) -> None:
    expected = METHODS[method].return_annotation
    answer = next(each for each in ANSWERS if type(each).__name__.removesuffix("Type") == expected)
    store.requests.once(request_1, method, answer_type(method), lambda: answer)
    again = store.requests.once(request_1, method, answer_type(method), lambda: pytest.fail("it was done twice"))
    assert (again, type(again)) == (answer, type(answer))
