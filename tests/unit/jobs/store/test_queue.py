from __future__ import annotations

import pytest

from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import queue
from sienn_ray.jobs.store.store import Store
from tests.support.fakes_jobs import job_record


@pytest.fixture
def queued(store: Store) -> Store:
    """Jobs with the numbers 1 to 5; the second and the fourth don't wait."""
    for number in range(1, 6):
        store.jobs.add(job_record(f"job-{number}"))
    store.jobs.update("job-2", status=JobStatus.RUNNING)
    store.jobs.cancel("job-4")
    return store


def test_length(store: Store, queued: Store) -> None:
    with store.database.reading() as connection:
        assert queue.length(connection) == 3


@pytest.mark.parametrize(
    ("seqs", "expected"),
    [
        ([], {}),
        ([1], {1: 1}),
        ([5], {5: 3}),
        ([5, 3, 1], {5: 3, 3: 2, 1: 1}),
        ([5, 4, 3, 2, 1], {5: 3, 3: 2, 1: 1}),
        ([2, 4], {}),
        ([99], {}),
    ],
)
def test_places(queued: Store, seqs: list[int], expected: dict[int, int]) -> None:
    with queued.database.reading() as connection:
        assert queue.places(connection, seqs) == expected


def test_next_jobs_come_in_order_of_arrival(queued: Store) -> None:
    assert [job.id for job in queued.jobs.waiting(9)] == ["job-1", "job-3", "job-5"]
    assert [job.id for job in queued.jobs.waiting(2)] == ["job-1", "job-3"]


@pytest.mark.parametrize("limit", [0, -1])
def test_no_room_admits_nothing(queued: Store, limit: int) -> None:
    assert queued.jobs.waiting(limit) == []


def test_job_that_lost_its_run_goes_ahead_of_later_ones(queued: Store) -> None:
    queued.jobs.update("job-2", attempt=1)
    queued.jobs.requeue("job-2", 1, "its Ray job is gone")
    assert [job.id for job in queued.jobs.waiting(9)] == ["job-1", "job-2", "job-3", "job-5"]
