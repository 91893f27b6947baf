"""Logs of Ray jobs, over a Ray that does as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import pytest

from deployments.job_logs import RayJobLogs, _Beginning
from sienn_ray.errors import CapacityError, NotFoundError
from sienn_ray.jobs.supervision.ray_logs import LogPlace

DEADLINE_S = 20


class FakeRayLogs:
    """One log, `job`, that Ray sends as it does: in batches, with pauses once it is at the end of the file.

    Attributes:
        place: Where `job` is; None for nowhere.
        lines: What is in the file.
        following: What comes when it is followed: bytes, or seconds of silence.
        reads: Node and `tail` of each reading.
        num_read: Chunks that were taken.
        is_closed: Whether a follower has let go.
        error: Raised by whatever is asked.
        blocked: While it is there, `look` waits for it.
    """

    def __init__(self) -> None:
        self.place: LogPlace | None = LogPlace("node-1", has_ended=False)
        self.lines: list[bytes] | None = []
        self.following: list[bytes | float | Exception] = []
        self.reads: list[tuple[str, int]] = []
        self.num_read = 0
        self.num_looks = 0
        self.is_closed = False
        self.error: Exception | None = None
        self.blocked: threading.Event | None = None
        self.on_look: Callable[[], None] = lambda: None

    def look(self, submission_id: str) -> LogPlace:
        assert submission_id == "job"
        self.num_looks += 1
        self.on_look()
        if self.blocked is not None:
            self.blocked.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        if self.place is None:
            raise LookupError("Request failed with status code 404")
        return self.place

    def read(self, node_id: str, submission_id: str, tail: int) -> Iterator[bytes]:
        self.reads.append((node_id, tail))
        if self.lines is None:
            raise LookupError("A file is not found at: /tmp/job-driver-job.log")
        for line in self.lines[-tail:]:
            self.num_read += 1
            yield line

    async def follow(self, submission_id: str) -> AsyncGenerator[bytes]:
        try:
            for item in self.following:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, float):
                    await asyncio.sleep(item)
                else:
                    yield item
        finally:
            self.is_closed = True


@pytest.fixture
def ray() -> FakeRayLogs:
    return FakeRayLogs()


@pytest.fixture
def logs(ray: FakeRayLogs) -> RayJobLogs:
    return RayJobLogs(ray, deadline_s=DEADLINE_S, pause_s=0.02, pauses_until_look=3)


def read(logs: RayJobLogs, *, tail: int = 1000, follow: bool = False) -> list[bytes]:
    """Every chunk of the log."""

    async def collect() -> list[bytes]:
        async with asyncio.timeout(DEADLINE_S):
            return [chunk async for chunk in logs.stream("job", tail=tail, follow=follow)]

    return asyncio.run(collect())


class TestRead:
    def test_last_lines_come_from_the_node_that_has_them(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.lines = [b"1\n", b"2\n", b"3\n"]
        assert read(logs, tail=2) == [b"2\n", b"3\n"]
        assert ray.reads == [("node-1", 2)]

    def test_no_lines(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.lines = [b"1\n"]
        assert read(logs, tail=0) == []

    def test_chunks_are_read_as_they_are_taken(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.lines = [b"x"] * 100

        async def take_three() -> None:
            async with aclosing(logs.stream("job", tail=100, follow=False)) as chunks:
                for _ in range(3):
                    await anext(chunks)

        asyncio.run(take_three())
        assert ray.num_read == 3

    @pytest.mark.parametrize("follow", [False, True])
    def test_job_that_ray_does_not_know(self, logs: RayJobLogs, ray: FakeRayLogs, follow: bool) -> None:
        ray.place = None
        with pytest.raises(NotFoundError, match="Ray has no log of job: logs go when the cluster"):
            read(logs, follow=follow)

    @pytest.mark.parametrize("follow", [False, True])
    def test_file_that_is_gone(self, logs: RayJobLogs, ray: FakeRayLogs, follow: bool) -> None:
        ray.place, ray.lines = LogPlace("node-1", has_ended=True), None
        with pytest.raises(NotFoundError, match="Ray has no log of job"):
            read(logs, follow=follow)

    @pytest.mark.parametrize("tail", [0, 5])
    def test_file_that_is_gone_and_of_which_ray_says_nothing(
        self, logs: RayJobLogs, ray: FakeRayLogs, tail: int
    ) -> None:
        ray.place, ray.lines = LogPlace("node-1", has_ended=True), []
        with pytest.raises(NotFoundError, match="Ray has no log of job"):
            read(logs, tail=tail)

    def test_file_that_is_not_there_yet_is_empty(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.lines = None
        assert read(logs) == []

    def test_program_that_has_not_begun(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.place = LogPlace(None, has_ended=False)
        assert read(logs) == []
        ray.place = LogPlace(None, has_ended=True)
        with pytest.raises(NotFoundError, match="ended before its program began"):
            read(logs)

    @pytest.mark.parametrize("follow", [False, True])
    def test_ray_that_is_away(self, logs: RayJobLogs, ray: FakeRayLogs, follow: bool) -> None:
        ray.error = ConnectionError("connection refused")
        with pytest.raises(CapacityError, match="connection refused"):
            read(logs, follow=follow)

    def test_ray_that_does_not_answer_has_a_deadline(self, ray: FakeRayLogs) -> None:
        ray.blocked = threading.Event()
        try:
            with pytest.raises(CapacityError, match="no answer within 0 s"):
                read(RayJobLogs(ray, deadline_s=0.05))
        finally:
            ray.blocked.set()

    def test_calls_that_hang_take_no_room_from_later_ones(self, ray: FakeRayLogs) -> None:
        ray.lines = [b"1\n"]
        hanging = ray.blocked = threading.Event()
        logs = RayJobLogs(ray, deadline_s=0.001)
        try:
            for _ in range(20):
                with pytest.raises(CapacityError):
                    read(logs)
            ray.blocked, logs._deadline_s = None, DEADLINE_S
            assert read(logs) == [b"1\n"]
        finally:
            hanging.set()


class TestFollow:
    def test_what_is_there_first_and_then_what_comes(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.following = [b"1\n2\n3\n", b"4\n5\n", 0.2, b"6\n", b"7\n"]
        # The first one tells that the answer can begin.
        assert read(logs, tail=2, follow=True) == [b"", b"4\n5\n", b"6\n", b"7\n"]
        assert ray.is_closed

    def test_job_that_ends_before_a_pause(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.following = [b"1\n2\n", b"3\n"]
        assert b"".join(read(logs, tail=2, follow=True)) == b"2\n3\n"

    def test_nothing_of_what_is_there(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.following = [b"1\n2\n", 0.2, b"3\n"]
        assert b"".join(read(logs, tail=0, follow=True)) == b"3\n"

    def test_ended_job_is_not_followed(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.place, ray.lines = LogPlace("node-1", has_ended=True), [b"1\n", b"2\n"]
        ray.following = [b"not asked for\n"]
        assert read(logs, tail=1, follow=True) == [b"2\n"]

    def test_reader_that_goes_away_lets_go_of_ray(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.following = [b"1\n", float(DEADLINE_S)]

        async def look_and_go() -> None:
            async with asyncio.timeout(DEADLINE_S / 2), aclosing(logs.stream("job", tail=5, follow=True)) as chunks:
                assert [await anext(chunks), await anext(chunks)] == [b"", b"1\n"]

        asyncio.run(look_and_go())
        assert ray.is_closed

    def test_reader_that_is_cancelled_while_it_waits_lets_go_of_ray(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.following = [b"1\n", 0.1, float(DEADLINE_S)]

        async def follow() -> None:
            async for chunk in logs.stream("job", tail=5, follow=True):
                if chunk:
                    begun.set()

        async def cancel() -> None:
            task = asyncio.create_task(follow())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        async def main() -> None:
            async with asyncio.timeout(DEADLINE_S / 2):
                await cancel()

        begun = asyncio.Event()
        asyncio.run(main())
        assert ray.is_closed

    def test_connection_that_is_lost_is_an_error(self, logs: RayJobLogs, ray: FakeRayLogs) -> None:
        ray.following = [b"1\n", ConnectionError("WebSocket connection closed unexpectedly")]
        with pytest.raises(CapacityError, match="closed unexpectedly"):
            read(logs, follow=True)

    @pytest.mark.parametrize("place", [LogPlace("node-1", has_ended=True), None])
    def test_dead_connection_ends_once_the_job_has(
        self, logs: RayJobLogs, ray: FakeRayLogs, place: LogPlace | None
    ) -> None:
        ray.following = [b"1\n", float(DEADLINE_S)]

        def end() -> None:
            if ray.num_looks == 3:
                ray.place = place

        ray.on_look = end
        assert b"".join(read(logs, follow=True)) == b"1\n"
        assert ray.num_looks == 3


class TestBeginning:
    def test_pauses_after_the_first_batch_tell_the_end_of_the_file(self) -> None:
        beginning = _Beginning(tail=3)
        assert [beginning.add(chunk, now_s) for chunk, now_s in ((b"1\n2\n", 1.0), (b"3\n4\n", 1.1))] == [b"", b""]
        assert beginning.add(None, 2.6) == b"2\n3\n4\n"
        assert beginning.is_over

    def test_log_that_never_pauses_long_is_at_its_end_when_batches_come_late(self) -> None:
        beginning = _Beginning(tail=3)
        beginning.add(b"1\n2\n", 3.0)
        assert beginning.add(b"3\n4\n", 4.0) == b"2\n3\n4\n"

    def test_slow_start_is_not_the_end(self) -> None:
        beginning = _Beginning(tail=3)
        assert [beginning.add(None, now_s) for now_s in (1.5, 3.0, 4.5, 6.0)] == [b""] * 4
        assert not beginning.is_over
        beginning.add(b"1\n", 6.1)
        assert beginning.add(None, 7.6) == b"1\n"

    def test_log_that_stays_empty_is_over_after_a_while(self) -> None:
        beginning = _Beginning(tail=3)
        assert [beginning.add(None, now_s) for now_s in (1.5, 6.4)] == [b"", b""]
        assert not beginning.is_over
        beginning.add(None, 6.6)
        assert beginning.is_over

    def test_memory_is_bounded_whatever_tail_says(self) -> None:
        beginning = _Beginning(tail=100_000)
        batch = (b"x" * 99_999 + b"\n") * 10
        for number in range(20):
            beginning.add(batch, number * 0.01)
        kept = beginning.take()
        assert 4_000_000 < len(kept) <= 4 * 1024**2
        assert kept == b"".join([b"x" * 99_999 + b"\n"] * (len(kept) // 100_000))

    @pytest.mark.parametrize("chunk", [b"\r1\r2\r3", b"a\x0bb\x0cc"])
    def test_only_line_feeds_end_lines(self, chunk: bytes) -> None:
        beginning = _Beginning(tail=1)
        beginning.add(chunk, 0.0)
        assert beginning.take() == chunk
