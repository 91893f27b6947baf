"""The asynchronous client, over a tracker in this process instead of an actor."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from sienn_ray.errors import CapacityError, ConflictError, InvalidInputError, NotFoundError, TooManyRequestsError
from sienn_ray.jobs.change_requests import ChangeRequest
from sienn_ray.jobs.client.tracker_client import tracker_client
from sienn_ray.jobs.schema import JobQuery, JobStatus
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.settings import Settings
from tests.support.fakes_jobs import FakeRayJobs, FakeRayLogs, dataset_record, job_record, no_mirror
from tests.unit.jobs.test_ids import STRANGE


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *args: Any) -> Awaitable[Any]:
        return asyncio.to_thread(self._run, pickle.dumps(args))

    def _run(self, args: bytes) -> Any:
        """Everything is pickled on its way, as Ray does."""
        try:
            return pickle.loads(pickle.dumps(self._call(*pickle.loads(args))))
        except Exception as error:
            cause = pickle.loads(pickle.dumps(error))
            raise RayTaskError("method", "traceback", cause).as_instanceof_cause() from None


class _Handle:
    """What Ray gives for an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self._actor, name))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", job_poll_s=3600, max_pending_jobs=2)


@pytest.fixture
def client(settings: Settings) -> Iterator[Tracker]:
    """A client of a tracker with one dataset and a running job, so that further ones wait."""
    ray_jobs = FakeRayJobs()
    ray_jobs.end("raysubmit_1", RayJobState.ACTIVE)
    tracker = JobTracker(settings, ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs())
    tracker.add_dataset(dataset_record())
    tracker.add_job(job_record("by-hand", status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_1"))
    yield tracker_client(lambda: _Handle(tracker))
    tracker.close()


def test_every_method_reaches_the_tracker(client: Tracker) -> None:
    async def ask() -> None:
        assert (await client.add_dataset(dataset_record("dataset-2"))).duplicate_of == "dataset-1"
        assert (await client.dataset("dataset-2")).id == "dataset-2"
        assert [record.id for record in (await client.datasets()).records] == ["dataset-2", "dataset-1"]
        assert (await client.delete_dataset("dataset-2")).id == "dataset-2"
        assert (await client.add_job(job_record(idempotency_key="key"))).id == "job-1"
        known = await client.job_of_key("key")
        assert known is not None
        assert known.id == "job-1"
        assert await client.job_of_key("other") is None
        assert (await client.job("job-1")).queue_position == 1
        page = await client.jobs(JobQuery(limit=1, status=JobStatus.PENDING))
        assert ([job.id for job in page.jobs], page.count, page.next_cursor) == (["job-1"], 1, None)
        assert [event.kind for event in await client.events("job-1", 0, 10)] == ["created"]
        assert await client.metric_points("job-1", 10) == []
        assert (await client.pause_job("job-1")).status is JobStatus.PAUSED
        assert (await client.resume_job("job-1")).status is JobStatus.PENDING
        assert (await client.cancel_job("job-1")).status is JobStatus.CANCELLED
        assert (await client.overview()).num_jobs[JobStatus.CANCELLED] == 1
        await client.add_metrics(MetricBatch("source", 1, (Sample("sienn_x_total", (), 2.0),)))
        assert Sample("sienn_x_total", (), 2.0) in await client.metric_samples()
        assert (await client.health()).database == "SQLite"

    asyncio.run(ask())


def test_retry_and_delete_reach_the_tracker(settings: Settings) -> None:
    ray_jobs = FakeRayJobs()
    tracker = JobTracker(settings, ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs())
    tracker.add_dataset(dataset_record())
    client = tracker_client(lambda: _Handle(tracker))

    async def stopped(client: Tracker) -> None:
        async with asyncio.timeout(30):
            while (await client.job("job-1")).ended_at is None:  # noqa: ASYNC110 (another thread's doing)
                await asyncio.sleep(0.01)

    async def ask() -> None:
        await client.add_job(job_record())
        await client.cancel_job("job-1")
        await stopped(client)
        assert (await client.retry_job("job-1")).status is JobStatus.PENDING
        await client.cancel_job("job-1")
        await stopped(client)
        assert (await client.delete_job("job-1")).id == "job-1"

    asyncio.run(ask())
    tracker.close()


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda client: client.dataset("nope"), NotFoundError),
        (lambda client: client.job("nope"), NotFoundError),
        (lambda client: client.retry_job("job-1"), ConflictError),
        (lambda client: client.resume_job("job-1"), ConflictError),
        (lambda client: client.delete_job("job-1"), ConflictError),
        (lambda client: client.delete_dataset("dataset-1"), ConflictError),
        (lambda client: client.jobs(JobQuery(cursor="nope")), InvalidInputError),
        (lambda client: client.add_job(job_record("job-9")), TooManyRequestsError),
    ],
)
def test_errors_arrive_as_they_were_raised(client: Tracker, ask: Any, error: type[Exception]) -> None:
    async def fill_and_ask() -> None:
        for number in (1, 2):
            await client.add_job(job_record(f"job-{number}"))
        with pytest.raises(error) as raised:
            await ask(client)
        assert type(raised.value) is error
        assert getattr(raised.value, "retry_after_s", 60) == 60

    asyncio.run(fill_and_ask())


# A tracker that is away


@pytest.mark.parametrize("error", [ActorDiedError(), ActorUnavailableError("away", b"0" * 16)])
def test_tracker_that_restarts(error: Exception) -> None:
    async def fail(*_: Any) -> None:
        raise error

    class Away:
        class job:  # noqa: N801
            remote = staticmethod(fail)

    with pytest.raises(CapacityError, match="the job tracker is restarting; try again in a moment"):
        asyncio.run(tracker_client(lambda: Away).job("job-1"))


def test_change_is_sent_to_the_tracker_that_has_taken_the_others_place(settings: Settings) -> None:
    tracker = JobTracker(settings, FakeRayJobs(), mirror=no_mirror)
    requests = []

    class Dead:
        class carry_out:  # noqa: N801
            @staticmethod
            async def remote(request: ChangeRequest, *_: Any) -> None:
                requests.append(request)
                raise ActorDiedError

    class Living:
        def carry_out(self, request: ChangeRequest, method: str, args: tuple[Any, ...]) -> Any:
            requests.append(request)
            return tracker.carry_out(request, method, args)

    handles = iter([Dead, _Handle(Living())])
    client = tracker_client(lambda: next(handles))
    assert asyncio.run(client.add_dataset(dataset_record())).id == "dataset-1"
    assert len(requests) == 2
    assert len({request.id for request in requests}) == 1
    tracker.close()


def test_tracker_is_not_looked_up_for_each_call() -> None:
    num_looked_up = 0

    class Living:
        def health(self) -> None:
            return None

    def find() -> Any:
        nonlocal num_looked_up
        num_looked_up += 1
        return _Handle(Living())

    async def ask() -> None:
        client = tracker_client(find)
        for _ in range(3):
            await client.health()

    asyncio.run(ask())
    assert num_looked_up == 1


def test_no_tracker_is_said() -> None:
    def find() -> None:
        raise CapacityError("the job tracker isn't running at the moment; try again in a moment")

    with pytest.raises(CapacityError, match="isn't running at the moment; try again"):
        asyncio.run(tracker_client(find).job("job-1"))


def test_fault_of_the_tracker_is_no_answer() -> None:
    class Broken:
        def job(self, _: str) -> None:
            raise ZeroDivisionError

    with pytest.raises(RayTaskError):
        asyncio.run(tracker_client(lambda: _Handle(Broken())).job("job-1"))


def test_tracker_that_does_not_answer() -> None:
    class Silent:
        class health:  # noqa: N801
            remote = staticmethod(lambda: asyncio.Event().wait())

    with pytest.raises(CapacityError, match=r"hasn't answered within 0\.05 s; try again in a moment"):
        asyncio.run(tracker_client(lambda: Silent, 0.05).health())


def test_tracker_that_can_not_be_found_holds_up_nobody() -> None:
    found = threading.Event()

    def connect() -> None:
        found.wait(60)

    async def ask() -> None:
        client = tracker_client(connect, 0.05)
        answers = await asyncio.gather(*(client.health() for _ in range(50)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {CapacityError}
        await asyncio.to_thread(lambda: None)  # the threads of everybody else are free
        found.set()

    asyncio.run(ask())


def test_callers_deadline_is_the_callers() -> None:
    class Silent:
        class health:  # noqa: N801
            remote = staticmethod(lambda: asyncio.Event().wait())

    async def ask() -> None:
        async with asyncio.timeout(0.05):
            await tracker_client(lambda: Silent).health()

    with pytest.raises(TimeoutError):
        asyncio.run(ask())


# Ids that are none


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, text: client.dataset(text),
        lambda client, text: client.delete_dataset(text),
        lambda client, text: client.job(text),
        lambda client, text: client.cancel_job(text),
        lambda client, text: client.pause_job(text),
        lambda client, text: client.resume_job(text),
        lambda client, text: client.retry_job(text),
        lambda client, text: client.delete_job(text),
        lambda client, text: client.events(text, 0, 10),
        lambda client, text: client.metric_points(text, 10),
        lambda client, text: client.exports(text),
        lambda client, text: client.export(text),
        lambda client, text: client.redo_export(text, "again"),
        lambda client, text: client.cancel_export(text),
        lambda client, text: client.delete_export(text),
    ],
)
def test_strange_ids_do_not_even_reach_the_tracker(ask: Any) -> None:
    client = tracker_client(lambda: pytest.fail("it was asked"))
    for text in STRANGE:
        with pytest.raises(NotFoundError):
            asyncio.run(ask(client, text))
