from __future__ import annotations

import pytest

from sienn_ray.jobs import queue
from sienn_ray.jobs.schema import JobStatus
from tests.fakes_jobs import job_record

PENDING = [job_record(f"job-{number}") for number in (1, 2, 3)]


def test_pending_jobs_come_in_order_of_arrival() -> None:
    newest_first = [
        job_record("job-4"),
        job_record("job-3", status=JobStatus.RUNNING),
        job_record("job-2"),
        job_record("job-1", status=JobStatus.FAILED),
        job_record("job-0", attempt=1),  # lost its run
    ]
    assert [job.id for job in queue.in_order_of_arrival(newest_first)] == ["job-0", "job-2", "job-4"]


@pytest.mark.parametrize(
    ("num_running", "max_running", "expected"),
    [
        (0, 1, ["job-1"]),
        (1, 1, []),
        (1, 2, ["job-1"]),
        (0, 3, ["job-1", "job-2", "job-3"]),
        (0, 9, ["job-1", "job-2", "job-3"]),
        (3, 2, []),  # the limit was lowered, or jobs were started by hand
    ],
)
def test_admission(num_running: int, max_running: int, expected: list[str]) -> None:
    assert [job.id for job in queue.admissible(PENDING, num_running, max_running)] == expected


def test_empty_queue_admits_nothing() -> None:
    assert queue.admissible([], 0, 4) == []


@pytest.mark.parametrize(("job_id", "place"), [("job-1", 1), ("job-3", 3), ("job-9", None)])
def test_position(job_id: str, place: int | None) -> None:
    assert queue.position(PENDING, job_id) == place
