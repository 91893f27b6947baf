from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.deps import Backends
from sienn_ray.api.lists.attempt_logs import followed_log_of
from sienn_ray.errors import CapacityError, NotFoundError
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import FakeEngines, FakeJobLogs, job_record
from tests.support.fakes_cluster import FakeCluster
from tests.support.fakes_renderings import FakeRenderings
from tests.support.fakes_statistics import FakeStatistics
from tests.support.in_process_tracker import InProcessTracker

LOGS = "/api/jobs/job-1/logs"
DEADLINE_S = 20


@pytest.fixture
def backends(
    settings: Settings,
    tracker: InProcessTracker,
    engines: FakeEngines,
    storage: Storage,
    job_logs: FakeJobLogs,
    cluster: FakeCluster,
) -> Backends:
    return Backends(
        settings=settings,
        tracker=tracker,
        engines=engines,
        storage=storage,
        job_logs=job_logs,
        cluster=cluster,
        statistics=FakeStatistics(),
        renderings=FakeRenderings(),
    )


class TestTail:
    def test_log_of_the_last_attempt_as_plain_text(
        self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=2, submission_id="sienn-job-1-2"))
        job_logs.chunks["sienn-job-1-2"] = [b"step 1\n", "naïve ✓\n".encode(), b"\x1b[36mstep"]
        response = client.get(LOGS)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.text == "step 1\nnaïve ✓\n\x1b[36mstep"
        assert job_logs.asked == [("sienn-job-1-2", 1000, False)]

    def test_bytes_that_are_no_text_pass_as_they_are(
        self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        tracker.put(job_record(status=JobStatus.FAILED, attempt=1))
        job_logs.chunks["sienn-job-1-1"] = [b"\xff\xfe\x00"]
        assert client.get(LOGS).content == b"\xff\xfe\x00"

    def test_earlier_attempt(self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=2, submission_id="sienn-job-1-2"))
        job_logs.chunks["sienn-job-1-1"] = [b"lost\n"]
        assert client.get(f"{LOGS}?attempt=1&tail=5").text == "lost\n"
        assert job_logs.asked == [("sienn-job-1-1", 5, False)]

    def test_ray_job_that_was_started_by_hand(
        self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_x"))
        job_logs.chunks["raysubmit_x"] = [b"by hand\n"]
        assert client.get(LOGS).text == client.get(f"{LOGS}?attempt=1").text == "by hand\n"

    def test_job_that_waits_has_an_empty_log(
        self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        tracker.put(job_record())
        response = client.get(LOGS)
        assert (response.status_code, response.text, job_logs.asked) == (200, "", [])

    @pytest.mark.parametrize(("query", "num_attempts"), [("attempt=3", 2), ("attempt=3&follow=true", 2)])
    def test_attempt_that_never_was(
        self, client: TestClient, tracker: InProcessTracker, query: str, num_attempts: int
    ) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=num_attempts))
        response = client.get(f"{LOGS}?{query}")
        assert response.status_code == 404
        assert response.json()["detail"].startswith("Job job-1 has had 2 attempts; leave `attempt` out")

    @pytest.mark.parametrize("query", ["", "?follow=true"])
    def test_log_that_went_with_its_cluster(self, client: TestClient, tracker: InProcessTracker, query: str) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, attempt=1))
        response = client.get(LOGS + query)
        assert response.status_code == 404
        assert response.json() == {"detail": "the cluster has no log of sienn-job-1-1", "status_code": 404}

    @pytest.mark.parametrize("query", ["", "?follow=true"])
    def test_ray_that_does_not_answer(
        self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs, query: str
    ) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))
        job_logs.error = CapacityError("Ray didn't say where the log is; try again in a moment")
        response = client.get(LOGS + query)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")

    @pytest.mark.parametrize(
        "query", ["tail=-1", "tail=100001", "tail=all", "follow=perhaps", "attempt=0", "attempt=1000001", "attempt=x"]
    )
    def test_limits(self, client: TestClient, tracker: InProcessTracker, query: str) -> None:
        tracker.put(job_record(attempt=1))
        response = client.get(f"{LOGS}?{query}")
        assert response.status_code == 422
        assert query.split("=")[0] in response.json()["detail"]

    @pytest.mark.parametrize("tail", [0, 1, 100_000])
    def test_tail_reaches_ray(
        self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs, tail: int
    ) -> None:
        tracker.put(job_record(status=JobStatus.FAILED, attempt=1))
        job_logs.chunks["sienn-job-1-1"] = []
        assert client.get(f"{LOGS}?tail={tail}").status_code == 200
        assert job_logs.asked == [("sienn-job-1-1", tail, False)]


def run(
    backends: Backends,
    job: JobRecord,
    *,
    attempt: int | None = None,
    on_chunk: Callable[[bytes], None] = lambda _: None,
) -> list[bytes]:
    """All that following a job's log gives."""
    chunks: list[bytes] = []

    async def follow() -> None:
        async with asyncio.timeout(DEADLINE_S):
            async for chunk in followed_log_of(job, attempt, backends, tail=10, poll_s=0.001):
                chunks.append(chunk)
                on_chunk(chunk)

    asyncio.run(follow())
    return chunks


class TestFollow:
    def test_ended_job_is_read_once(self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs) -> None:
        job = job_record(status=JobStatus.COMPLETED, attempt=1)
        tracker.put(job)
        job_logs.chunks["sienn-job-1-1"] = [b"a\n", b"b\n"]
        assert b"".join(run(backends, job)) == b"a\nb\n"
        assert job_logs.asked == [("sienn-job-1-1", 10, True)]

    def test_over_http(self, client: TestClient, tracker: InProcessTracker, job_logs: FakeJobLogs) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, attempt=1))
        job_logs.chunks["sienn-job-1-1"] = [b"a\n", b"b\n"]
        response = client.get(f"{LOGS}?follow=true&tail=7")
        assert (response.status_code, response.text) == (200, "a\nb\n")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert job_logs.asked == [("sienn-job-1-1", 7, True)]

    def test_goes_on_with_the_next_attempt_until_the_job_has_ended(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        job = job_record(status=JobStatus.RUNNING, attempt=1)
        tracker.put(job)
        job_logs.chunks = {"sienn-job-1-1": [b"one\n"], "sienn-job-1-2": [b"two\n"]}
        after = {
            "sienn-job-1-1": job_record(status=JobStatus.RUNNING, attempt=2),
            "sienn-job-1-2": job_record(status=JobStatus.COMPLETED, attempt=2),
        }
        job_logs.on_end = lambda submission_id: tracker.put(after[submission_id])
        assert b"".join(run(backends, job)) == b"one\ntwo\n"
        assert [asked[0] for asked in job_logs.asked] == ["sienn-job-1-1", "sienn-job-1-2"]

    def test_one_attempt_alone_ends_with_it(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        job = job_record(status=JobStatus.RUNNING, attempt=2)
        tracker.put(job)
        job_logs.chunks = {"sienn-job-1-1": [b"one\n"], "sienn-job-1-2": [b"two\n"]}
        assert b"".join(run(backends, job, attempt=1)) == b"one\n"

    def test_waits_for_a_job_that_waits(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        tracker.put(job_record())
        job_logs.chunks["sienn-job-1-1"] = [b"one\n"]
        job_logs.on_end = lambda _: tracker.put(job_record(status=JobStatus.FAILED, attempt=1))

        def start(chunk: bytes) -> None:
            if not chunk:  # what tells that the answer can begin
                tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))

        assert run(backends, job_record(), on_chunk=start) == [b"", b"", b"one\n"]

    def test_job_that_is_paused_ends_it(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))
        job_logs.chunks = {"sienn-job-1-1": [b"one\n"]}
        job_logs.on_end = lambda _: tracker.put(job_record(status=JobStatus.PAUSED, attempt=1))
        assert run(backends, job_record(status=JobStatus.RUNNING, attempt=1)) == [b"", b"one\n"]

    def test_waiting_job_that_is_cancelled_ends_it(self, backends: Backends, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        cancelled = job_record(status=JobStatus.CANCELLED)
        assert run(backends, job_record(), on_chunk=lambda _: tracker.put(cancelled)) == [b""]

    def test_run_that_is_not_submitted_yet_is_waited_for(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        job = job_record(status=JobStatus.RUNNING, attempt=1)
        tracker.put(job)
        job_logs.on_end = lambda _: tracker.put(job_record(status=JobStatus.COMPLETED, attempt=1))

        def submit(_: bytes) -> None:
            job_logs.chunks["sienn-job-1-1"] = [b"one\n"]

        assert b"".join(run(backends, job, on_chunk=submit)) == b"one\n"
        assert len(job_logs.asked) == 2

    def test_lost_log_of_a_later_attempt_ends_it_without_an_error(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        job = job_record(status=JobStatus.RUNNING, attempt=1)
        tracker.put(job)
        job_logs.chunks["sienn-job-1-1"] = [b"one\n"]
        job_logs.on_end = lambda _: tracker.put(job_record(status=JobStatus.FAILED, attempt=2))
        assert b"".join(run(backends, job)) == b"one\n"

    def test_tracker_that_restarts_is_waited_for(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        job = job_record(status=JobStatus.RUNNING, attempt=1)
        tracker.put(job)
        job_logs.chunks["sienn-job-1-1"] = [b"one\n"]

        def restart(_: str) -> None:
            tracker.fail_with(CapacityError("the job tracker is restarting"), num_calls=1)
            tracker.put(job_record(status=JobStatus.COMPLETED, attempt=1))

        job_logs.on_end = restart
        assert b"".join(run(backends, job)) == b"one\n"
        assert tracker.num_failed == 1

    def test_deleted_job_ends_it(self, backends: Backends) -> None:
        assert run(backends, job_record()) == [b""]

    def test_ended_job_without_a_log_is_not_found(self, backends: Backends) -> None:
        with pytest.raises(NotFoundError):
            run(backends, job_record(status=JobStatus.FAILED, attempt=1))

    def test_client_that_goes_away_ends_the_stream_behind(
        self, backends: Backends, tracker: InProcessTracker, job_logs: FakeJobLogs
    ) -> None:
        ended: list[str] = []

        class Endless(FakeJobLogs):
            async def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> AsyncGenerator[bytes]:
                try:
                    while True:
                        yield b"more\n"
                finally:
                    ended.append(submission_id)

        job = job_record(status=JobStatus.RUNNING, attempt=1)
        tracker.put(job)
        endless = Backends(**{**vars(backends), "job_logs": Endless()})

        async def look_and_go() -> None:
            async with asyncio.timeout(DEADLINE_S):
                async with aclosing(followed_log_of(job, None, endless, tail=10)) as chunks:
                    assert await anext(chunks) == b"more\n"

        asyncio.run(look_and_go())
        assert ended == ["sienn-job-1-1"]


class TestKept:
    """Logs in storage, of attempts that have ended."""

    @pytest.fixture(autouse=True)
    def _kept(self, storage: Storage, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.FAILED, attempt=2, submission_id="sienn-job-1-2"))
        for attempt in (1, 2):
            storage.write_bytes(f"logs/job-1/{attempt}/program.log", b"one\ntwo\nof attempt %d\n" % attempt)

    @pytest.mark.parametrize("follow", ["false", "true"])
    def test_they_outlive_the_cluster(self, client: TestClient, follow: str) -> None:
        assert client.get(f"{LOGS}?follow={follow}").text == "one\ntwo\nof attempt 2\n"
        assert client.get(f"{LOGS}?follow={follow}&attempt=1&tail=2").text == "two\nof attempt 1\n"
        assert client.get(f"{LOGS}?follow={follow}&tail=0").text == ""

    def test_they_are_there_while_ray_does_not_answer(self, client: TestClient, job_logs: FakeJobLogs) -> None:
        job_logs.error = CapacityError("Ray didn't say where the log is")
        assert client.get(LOGS).text == "one\ntwo\nof attempt 2\n"

    def test_what_ray_has_comes_first(self, client: TestClient, job_logs: FakeJobLogs) -> None:
        job_logs.chunks["sienn-job-1-2"] = [b"all of it\n"]
        assert client.get(LOGS).text == "all of it\n"

    def test_what_was_not_kept_is_not_found(self, client: TestClient, storage: Storage) -> None:
        storage.delete("logs")
        assert client.get(LOGS).status_code == 404
