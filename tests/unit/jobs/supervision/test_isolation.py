"""One job in trouble holds up no other, and is tried again with exponential back-off."""

from __future__ import annotations

import logging

import pytest
from ray.exceptions import AuthenticationError

from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.backoff import Backoff
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_job_client import JobApiTimeoutError
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from sienn_ray.jobs.supervision.refusals import words_of_refusal
from tests.support.fakes_jobs import FakeRayJobs, Seconds, all_jobs, job_record

TROUBLES = [
    ConnectionError("Request failed with status code 500: no agent"),
    AuthenticationError("the token was rotated"),
    ValueError("metadata is too long"),
    JobApiTimeoutError("no answer within 30 s"),
]


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


def supervisor(store: Store, ray_jobs: FakeRayJobs, seconds: Seconds, max_running: int) -> Supervisor:
    return Supervisor(store.jobs, ray_jobs, max_running=max_running, max_attempts=3, clock_s=seconds)


def add_jobs(store: Store, number: int) -> None:
    for index in range(1, number + 1):
        store.jobs.add(job_record(f"job-{index}"))


def statuses(store: Store) -> list[str]:
    return [job.status.value for job in reversed(all_jobs(store))]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda error: type(error).__name__)
def test_job_that_can_not_be_looked_at_holds_up_no_other(
    store: Store, ray_jobs: FakeRayJobs, seconds: Seconds, trouble: Exception
) -> None:
    add_jobs(store, 4)
    keeper = supervisor(store, ray_jobs, seconds, max_running=3)
    keeper.step()
    ray_jobs.look_errors["sienn-job-1-1"] = trouble
    ray_jobs.end("sienn-job-2-1", RayJobState.STOPPED)
    keeper.step()
    keeper.step()  # the first may have met a deadline, which ends a step
    assert statuses(store) == ["running", "failed", "running", "running"]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda error: type(error).__name__)
def test_job_that_can_not_be_submitted_holds_up_no_other(
    store: Store, ray_jobs: FakeRayJobs, seconds: Seconds, trouble: Exception
) -> None:
    add_jobs(store, 3)
    ray_jobs.submit_errors["job-1"] = trouble
    keeper = supervisor(store, ray_jobs, seconds, max_running=1)
    for _ in range(3):
        keeper.step()
    assert ray_jobs.submitted == ["sienn-job-2-1"]
    store.jobs.update("job-2", status=JobStatus.COMPLETED)
    ray_jobs.submit_errors.clear()
    seconds.advance(60)
    keeper.step()
    assert statuses(store) == ["running", "completed", "pending"], "it has kept its place in the queue"


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda error: type(error).__name__)
def test_job_that_can_not_be_stopped_holds_up_no_other(
    store: Store, ray_jobs: FakeRayJobs, seconds: Seconds, trouble: Exception
) -> None:
    add_jobs(store, 3)
    keeper = supervisor(store, ray_jobs, seconds, max_running=2)
    keeper.step()
    store.jobs.cancel("job-1")
    store.jobs.cancel("job-2")
    ray_jobs.stop_errors["sienn-job-1-1"] = trouble
    for _ in range(3):
        keeper.step()
    assert statuses(store) == ["cancelled", "cancelled", "running"]
    assert [store.jobs.get(job_id).phase for job_id in ("job-1", "job-2")] == ["stopping", "cancelled"]


def test_step_ends_with_the_first_call_over_its_deadline(store: Store, ray_jobs: FakeRayJobs, seconds: Seconds) -> None:
    add_jobs(store, 4)
    keeper = supervisor(store, ray_jobs, seconds, max_running=4)
    keeper.step()
    ray_jobs.looked.clear()
    for number in (1, 2, 3, 4):
        ray_jobs.look_errors[f"sienn-job-{number}-1"] = JobApiTimeoutError("no answer within 30 s")
    keeper.step()
    assert ray_jobs.looked == ["sienn-job-1-1"]
    keeper.step()
    assert ray_jobs.looked == ["sienn-job-1-1", "sienn-job-2-1"]


def test_retries_become_rarer_and_their_errors_are_logged_once(
    store: Store, ray_jobs: FakeRayJobs, seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs, seconds, max_running=1)
    keeper.step()
    ray_jobs.looked.clear()
    ray_jobs.look_errors["sienn-job-1-1"] = ConnectionError("Request failed with status code 500")
    looks = []
    with caplog.at_level(logging.WARNING):
        for _ in range(130):
            keeper.step()
            looks.append(len(ray_jobs.looked))
            seconds.advance(1)
    rises = [second for second, (before, now) in enumerate(zip([0, *looks], looks, strict=False)) if now > before]
    assert rises == [0, 1, 3, 7, 15, 31, 63, 123]
    words = [record.getMessage() for record in caplog.records]
    assert words == ["job job-1: couldn't look at it (1 time(s) in a row)"]


def test_success_ends_the_back_off(seconds: Seconds) -> None:
    backoff = Backoff(seconds)
    assert [backoff.failed("a"), backoff.failed("a"), backoff.failed("b")] == [1, 2, 1]
    assert (backoff.is_due("a"), backoff.is_due("c"), len(backoff.waiting())) == (False, True, 2)
    backoff.succeeded("a")
    assert (backoff.is_due("a"), backoff.num_failures("a"), backoff.failed("a")) == (True, 0, 1)


def test_what_is_not_tried_again_is_forgotten(seconds: Seconds) -> None:
    backoff = Backoff(seconds)
    backoff.failed("a")
    seconds.advance(602)
    backoff.failed("b")
    assert backoff.num_failures("a") == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("HTTPConnectionPool(host='10.0.0.7', port=8265): refused"), "is out of reach"),
        (JobApiTimeoutError("no answer within 30 s"), "doesn't answer"),
        (
            ConnectionError("Request failed with status code 500: Traceback\n  File x\nRuntimeError: No agent.\n."),
            "has answered with status 500: RuntimeError: No agent.",
        ),
    ],
)
def test_waiting_job_says_why_it_is_not_submitted(error: ConnectionError, words: str) -> None:
    assert [words_of_refusal(error, number) for number in (1, 2)] == ["Waiting for Ray's job API"] * 2
    assert f"3 submissions in a row have failed, since Ray's job API {words};" in words_of_refusal(error, 3)
