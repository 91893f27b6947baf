"""Reports of a replica: none is lost while it lives and the tracker comes back, and their number is bounded."""

from __future__ import annotations

import asyncio

import pytest

from sienn_ray.access.audit import AuditOrigin, AuditReport
from sienn_ray.api.audit import recorder
from sienn_ray.api.audit.recorder import MAX_CALLERS, MAX_OF_ALL, MAX_OF_CALLER, WINDOW_S, AuditRecorder
from sienn_ray.errors import CapacityError
from tests.support.fakes_jobs import Seconds


class Tracker:
    """Takes reports, unless it is away."""

    def __init__(self) -> None:
        self.reports: list[AuditReport] = []
        self.num_calls = 0
        self.error: Exception | None = None
        self.is_answer_lost = False

    async def add(self, reports: tuple[AuditReport, ...]) -> None:
        self.num_calls += 1
        if self.error is not None and not self.is_answer_lost:
            raise self.error
        self.reports += reports
        if self.error is not None:
            raise self.error


def refused(client: str = "203.0.113.7", status: int = 401) -> AuditOrigin:
    return AuditOrigin(client=client, status=status, action=None, request="GET /api/jobs")


def put(of: AuditRecorder, *origins: AuditOrigin, is_sampled: bool = True) -> None:
    for origin in origins:
        of.report(origin, None, None, is_sampled=is_sampled)


def test_what_waits_is_sent_in_order_when_the_tracker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_SENT_AT_ONCE", 2)
    tracker = Tracker()
    of = AuditRecorder(tracker.add)
    put(of, *(AuditOrigin(request_id=str(number)) for number in range(5)), is_sampled=False)
    tracker.error = CapacityError("away")
    asyncio.run(of.flush())
    assert tracker.reports == []
    tracker.error = None
    asyncio.run(of.flush())
    assert [each.origin.request_id for each in tracker.reports] == ["0", "1", "2", "3", "4"]
    assert tracker.num_calls == 4
    asyncio.run(of.flush())
    assert tracker.num_calls == 4


def test_a_lost_answer_is_repeated_under_the_same_ids() -> None:
    tracker = Tracker()
    of = AuditRecorder(tracker.add)
    put(of, AuditOrigin(), is_sampled=False)
    tracker.error, tracker.is_answer_lost = CapacityError("too slow"), True
    asyncio.run(of.flush())
    tracker.error = None
    asyncio.run(of.flush())
    first, again = tracker.reports
    assert first == again  # and the log has it once


def test_reports_that_wait_are_bounded_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING", 3)
    tracker = Tracker()
    of = AuditRecorder(tracker.add)
    put(of, *(AuditOrigin(request_id=str(number)) for number in range(10)), is_sampled=False)
    asyncio.run(of.flush())
    assert [each.origin.request_id for each in tracker.reports[:3]] == ["0", "1", "2"]
    assert (tracker.reports[3].origin.action, tracker.reports[3].num_requests) == ("audit_reports_dropped", 7)


def test_of_many_refusals_the_first_are_told_and_the_others_counted() -> None:
    tracker, seconds = Tracker(), Seconds()
    of = AuditRecorder(tracker.add, seconds)
    put(of, *[refused()] * 10_000, refused(status=403), refused("198.51.100.1"))
    asyncio.run(of.flush())
    assert len(tracker.reports) == MAX_OF_CALLER + 2
    seconds.advance(WINDOW_S)
    asyncio.run(of.flush())
    summary = tracker.reports[-1]
    assert (summary.origin, summary.num_requests) == (refused(), 10_000 - MAX_OF_CALLER)
    assert sum(each.num_requests for each in tracker.reports) == 10_002
    put(of, refused())
    asyncio.run(of.flush())
    assert tracker.reports[-1].num_requests == 1


def test_many_callers_can_not_fill_the_log_either() -> None:
    tracker, seconds = Tracker(), Seconds()
    of = AuditRecorder(tracker.add, seconds)
    put(of, *(refused(f"10.0.{number // 250}.{number % 250}") for number in range(5000)))
    seconds.advance(WINDOW_S)
    asyncio.run(of.flush())
    assert len(tracker.reports) == MAX_OF_ALL + MAX_CALLERS + 1
    assert sum(each.num_requests for each in tracker.reports) == 5000
    assert tracker.reports[-1].origin.action == "others_refused"
    assert len(of._num_of_caller) <= MAX_OF_ALL


def test_what_waits_is_sent_when_the_application_ends() -> None:
    tracker = Tracker()
    of = AuditRecorder(tracker.add)

    async def run() -> None:
        async with of.running():
            put(of, *[refused()] * 7)

    asyncio.run(run())
    assert [each.num_requests for each in tracker.reports] == [1, 1, 1, 1, 1, 2]
