from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest

from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.schema import JobPage, JobQuery, JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.training.config import TrainingConfig
from tests.support.fakes_jobs import MOMENT, dataset_record, job_record


def add_jobs(store: Store, number: int, **fields: Any) -> None:
    for index in range(1, number + 1):
        store.jobs.add(job_record(f"job-{index}", **fields))


def ids(page: JobPage) -> list[str]:
    return [job.id for job in page.jobs]


def walk(store: Store, limit: int, **filters: Any) -> list[JobPage]:
    """All pages, one after the other."""
    pages = [store.jobs.page(JobQuery(limit=limit, **filters))]
    while pages[-1].next_cursor is not None:
        assert len(pages) < 50, "the pages don't end"
        pages.append(store.jobs.page(JobQuery(limit=limit, cursor=pages[-1].next_cursor, **filters)))
    return pages


# Pages


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (1000, [7])])
def test_pages_follow_each_other(store: Store, limit: int, sizes: list[int]) -> None:
    add_jobs(store, 7)
    pages = walk(store, limit)
    assert [len(page.jobs) for page in pages] == sizes
    assert [job_id for page in pages for job_id in ids(page)] == [f"job-{number}" for number in range(7, 0, -1)]
    assert {page.count for page in pages} == {7}


def test_no_limit_gives_all(store: Store) -> None:
    add_jobs(store, 7)
    page = store.jobs.page(JobQuery())
    assert (len(page.jobs), page.count, page.next_cursor) == (7, 7, None)


def test_no_jobs(store: Store) -> None:
    assert store.jobs.page(JobQuery(limit=5)) == JobPage([], 0, None)
    assert store.jobs.page(JobQuery()) == JobPage([], 0, None)


def test_order_is_that_of_arrival_and_not_of_clocks(store: Store) -> None:
    for number, days in [(1, 5), (2, 9), (3, 1)]:
        store.jobs.add(job_record(f"job-{number}", created_at=MOMENT - timedelta(days=days)))
    assert [job_id for page in walk(store, 2) for job_id in ids(page)] == ["job-3", "job-2", "job-1"]


def test_cursor_stands_while_jobs_come_and_go(store: Store) -> None:
    add_jobs(store, 6)
    first = store.jobs.page(JobQuery(limit=2))
    store.jobs.add(job_record("job-7"))
    for job_id in ("job-5", "job-4"):  # the last one of the page, and the first one of the next
        store.jobs.cancel(job_id)
        store.jobs.delete(job_id)
    second = store.jobs.page(JobQuery(limit=2, cursor=first.next_cursor))
    assert (ids(first), ids(second), second.count) == (["job-6", "job-5"], ["job-3", "job-2"], 5)


# Cursors that are none


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "1",
        "x",
        "====",
        "not a cursor",
        "MTI",  # cut
        "MTI=\n",
        base64.urlsafe_b64encode(b"-1").decode(),
        base64.urlsafe_b64encode(b"1.5").decode(),
        base64.urlsafe_b64encode(b"1 OR 1=1").decode(),
        base64.urlsafe_b64encode("١٢".encode()).decode(),
        base64.urlsafe_b64encode(b"9" * 19).decode(),
        base64.urlsafe_b64encode(b"9" * 5000).decode(),
        "größe",
        "\ud800",
        "a\0b",
        "A" * 10_000,
    ],
)
def test_what_is_no_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^cursor .* isn't one; take `next_cursor`") as raised:
        store.jobs.page(JobQuery(cursor=cursor))
    assert repr(cursor[:64]) in raised.value.message
    assert len(raised.value.message) < 400
    raised.value.message.encode()


def test_cursor_may_be_of_any_page(store: Store) -> None:
    add_jobs(store, 3)
    beyond = base64.urlsafe_b64encode(b"9" * 18).decode()
    assert ids(store.jobs.page(JobQuery(cursor=beyond))) == ["job-3", "job-2", "job-1"]
    assert ids(store.jobs.page(JobQuery(cursor=base64.urlsafe_b64encode(b"0").decode()))) == []


# Filters


@pytest.fixture
def mixed(store: Store) -> Store:
    """Six jobs that differ in everything one can filter by."""
    store.datasets.add(dataset_record("dataset-2"))
    other = TrainingConfig(base_model="owner/other")
    for job in (
        job_record("job-1", name="first", labels={"team": "a", "run": "1"}),
        job_record("job-2", dataset_id="dataset-2", labels={"team": "b", "run": "1"}),
        job_record("job-3", config=other, name="first", labels={"team": "a"}),
        job_record("job-4", validation_dataset_id="dataset-2", labels={"a": "team"}),
        job_record("job-5", dataset_id="dataset-2", validation_dataset_id="dataset-2", config=other),
        job_record("job-6", name="First", labels={"team": "a", "run": "2"}),
    ):
        store.jobs.add(job)
    store.jobs.cancel("job-1")
    store.jobs.update("job-6", status=JobStatus.RUNNING)
    return store


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, [6, 5, 4, 3, 2, 1]),
        ({"status": JobStatus.PENDING}, [5, 4, 3, 2]),
        ({"status": JobStatus.CANCELLED}, [1]),
        ({"status": JobStatus.COMPLETED}, []),
        ({"dataset_id": "dataset-1"}, [6, 4, 3, 1]),
        ({"dataset_id": "dataset-2"}, [5, 4, 2]),
        ({"dataset_id": "nope"}, []),
        ({"base_model": "owner/other"}, [5, 3]),
        ({"base_model": "other"}, []),
        ({"name": "first"}, [3, 1]),
        ({"name": ""}, []),
        ({"name": "%"}, []),
        ({"labels": {"team": "a"}}, [6, 3, 1]),
        ({"labels": {"team": "a", "run": "1"}}, [1]),
        ({"labels": {"team": "a", "run": "3"}}, []),
        ({"labels": {"a": "team"}}, [4]),
        ({"labels": {"team": ""}}, []),
        ({"labels": {"' OR '1'='1": "a"}}, []),
        ({"status": JobStatus.PENDING, "dataset_id": "dataset-1", "base_model": "owner/other", "name": "first"}, [3]),
        ({"status": JobStatus.PENDING, "labels": {"run": "1"}}, [2]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, None])
def test_filters(mixed: Store, filters: dict[str, Any], numbers: list[int], limit: int | None) -> None:
    expected = [f"job-{number}" for number in numbers]
    pages = walk(mixed, limit, **filters) if limit else [mixed.jobs.page(JobQuery(**filters))]
    assert [job_id for page in pages for job_id in ids(page)] == expected
    assert {page.count for page in pages} == {len(expected)}


HOSTILE = ["a\0b", "\ud800", "'; DROP TABLE jobs; --", "x" * 100_000, "⛴", "\n"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_filters_find_nothing(mixed: Store, text: str) -> None:
    for query in (
        JobQuery(dataset_id=text),
        JobQuery(base_model=text),
        JobQuery(name=text),
        JobQuery(labels={text: "a"}),
        JobQuery(labels={"team": text}),
    ):
        assert mixed.jobs.page(query) == JobPage([], 0, None)


def test_strange_names_are_kept_and_found(store: Store) -> None:
    store.jobs.add(job_record(name="Fähre ⛴\n", labels={"größe": "⛴"}))
    assert ids(store.jobs.page(JobQuery(name="Fähre ⛴\n", labels={"größe": "⛴"}))) == ["job-1"]


@pytest.mark.parametrize(("given", "kept"), [("a\0b", "a\ufffdb"), ("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀")])
def test_text_that_no_database_takes_is_made_good(store: Store, given: str, kept: str) -> None:
    store.datasets.add(dataset_record("dataset-2", filename=given))
    store.jobs.add(job_record(name=given, message=given, labels={"key": given}))
    job = store.jobs.get("job-1")
    assert (job.name, job.message, store.datasets.get("dataset-2").filename) == (kept, kept, kept)
    assert ids(store.jobs.page(JobQuery(name=given, labels={"key": given}))) == ["job-1"]
    job.model_dump_json()


# Places in the queue


def places(page: JobPage) -> dict[str, int | None]:
    return {job.id: job.queue_position for job in page.jobs}


def test_waiting_jobs_say_their_place(mixed: Store) -> None:
    expected = {"job-6": None, "job-5": 4, "job-4": 3, "job-3": 2, "job-2": 1, "job-1": None}
    assert places(mixed.jobs.page(JobQuery())) == expected
    pages = walk(mixed, 2)
    assert {job_id: place for page in pages for job_id, place in places(page).items()} == expected
    assert places(mixed.jobs.page(JobQuery(base_model="owner/other"))) == {"job-5": 4, "job-3": 2}
    assert [mixed.jobs.get(job_id).queue_position for job_id in expected] == list(expected.values())


def test_places_move_up(mixed: Store) -> None:
    mixed.jobs.update("job-2", status=JobStatus.RUNNING)
    mixed.jobs.cancel("job-4")
    assert places(mixed.jobs.page(JobQuery(status=JobStatus.PENDING))) == {"job-5": 2, "job-3": 1}


def test_place_is_said_and_not_written(mixed: Store) -> None:
    assert mixed.jobs.get("job-5").queue_position == 4
    mixed.jobs.update("job-5", status=JobStatus.RUNNING)
    assert mixed.jobs.get("job-5").queue_position is None
