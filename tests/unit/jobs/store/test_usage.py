"""Usage adds up once, whatever is repeated and whoever counts at the same time."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest

from sienn_ray import metrics
from sienn_ray.access.principals import Principal, Scope
from sienn_ray.access.usage import (
    UsageBatch,
    UsageCounts,
    UsageGroup,
    UsageKey,
    UsageQuery,
    UsageRecorder,
    UsageRow,
)
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import metric_store, usage_sums
from sienn_ray.jobs.store.store import Store
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_jobs import Clock, job_record, run_summary

DAY = date(2025, 3, 4)
ADA = Principal("ada", frozenset({Scope.INFER}), "key-1")


def batch(number: int, *rows: tuple[UsageKey, UsageCounts], source: str = "replica") -> UsageBatch:
    return UsageBatch(source, number, rows)


def total(store: Store, query: UsageQuery | None = None) -> UsageCounts:
    return store.usage.report(query or UsageQuery()).total


def test_rows_add_up_over_batches(store: Store) -> None:
    key = UsageKey(DAY, "ada", "key-1", "owner/model", "job-1")
    one = UsageCounts(num_answers=1, prompt_tokens=2**40, completion_tokens=3, engine_s=0.5)
    store.usage.add(batch(1, (key, one), (key, one)))
    store.usage.add(batch(2, (key, one)))
    report = store.usage.report(UsageQuery(group_by=(UsageGroup.ADAPTER,)))
    assert report.rows == (UsageRow(one + one + one, base_model="owner/model", adapter_id="job-1"),)
    assert report.total == one + one + one


@pytest.mark.parametrize("numbers", [[1, 1], [1, 2, 1], [1, 2, 2, 1], [2, 1]])
def test_a_repeated_batch_counts_once(store: Store, numbers: list[int]) -> None:
    for number in numbers:
        store.usage.add(batch(number, (UsageKey(DAY, "ada"), UsageCounts(num_requests=10**number))))
    assert total(store).num_requests == sum({10**number for number in numbers if number >= numbers[0]})


def test_many_replicas_flush_at_the_same_time_and_some_of_it_twice(store: Store) -> None:
    draw = random.Random(1)
    sent: list[UsageBatch] = []
    expected = UsageCounts()
    for source in range(4):
        for number in range(1, 6):
            counts = UsageCounts(num_requests=draw.randint(1, 9), prompt_tokens=draw.randint(0, 99))
            expected += counts
            sent.append(batch(number, (UsageKey(DAY, f"owner-{number}"), counts), source=f"replica-{source}"))

    def flush(source: int) -> None:
        for each in [each for each in sent if each.source == f"replica-{source}"]:
            for _ in range(draw.randint(1, 3)):  # an answer was lost, and it is sent again
                store.usage.add(each)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(flush, range(4)))
    assert total(store) == expected


class TestRecorder:
    def test_what_is_not_confirmed_is_sent_again_alone(self) -> None:
        recorder = UsageRecorder()
        recorder.add(ADA, UsageCounts(num_requests=1))
        first = recorder.take()
        recorder.add(ADA, UsageCounts(num_requests=5))
        assert first is not None
        assert recorder.take() == first
        recorder.confirm(first)
        second = recorder.take()
        assert second is not None
        assert (second.number, second.rows[0][1].num_requests) == (2, 5)
        recorder.confirm(second)
        assert recorder.take() is None

    def test_callers_who_are_nobody_are_not_counted(self) -> None:
        recorder = UsageRecorder()
        recorder.add(Principal("", frozenset()), UsageCounts(num_requests=1))
        assert recorder.take() is None

    def test_its_memory_is_bounded(self) -> None:
        recorder = UsageRecorder(max_rows=2)
        for number in (1, 2, 3, 1):
            recorder.add(ADA, UsageCounts(num_answers=1), f"owner/model-{number}")
        taken = recorder.take()
        assert taken is not None
        assert [(key.base_model, counts.num_answers) for key, counts in taken.rows] == [
            ("owner/model-1", 2),
            ("owner/model-2", 1),
        ]


@pytest.fixture
def filled(store: Store) -> Store:
    """Two owners over three days."""
    for number, (owner, key_id) in enumerate([("ada", "key-1"), ("ada", "key-2"), ("bob", "key-3")]):
        for days in range(3):
            key = UsageKey(DAY + timedelta(days=days), owner, key_id, "owner/model", f"job-{number}")
            store.usage.add(batch(3 * number + days + 1, (key, UsageCounts(num_answers=10**number))))
    return store


class TestReport:
    def test_groups(self, filled: Store) -> None:
        days = filled.usage.report(UsageQuery()).rows
        assert [(row.day, row.counts.num_answers) for row in days] == [
            (DAY + timedelta(days=days), 111) for days in (2, 1, 0)
        ]
        owners = filled.usage.report(UsageQuery(group_by=(UsageGroup.OWNER,))).rows
        assert [(row.owner, row.counts.num_answers) for row in owners] == [("ada", 33), ("bob", 300)]
        keys = filled.usage.report(UsageQuery(group_by=(UsageGroup.KEY,))).rows
        assert [row.key_id for row in keys] == ["key-1", "key-2", "key-3"]
        assert filled.usage.report(UsageQuery(group_by=())).rows[0].counts.num_answers == 333

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (UsageQuery(owner="ada"), 33),
            (UsageQuery(key_id="key-3"), 300),
            (UsageQuery(model="owner/model"), 333),
            (UsageQuery(model="job-1"), 30),
            (UsageQuery(first_day=DAY + timedelta(days=1)), 222),
            (UsageQuery(last_day=DAY), 111),
            (UsageQuery(owner="eve"), 0),
        ],
    )
    def test_filters(self, filled: Store, query: UsageQuery, expected: int) -> None:
        assert total(filled, query).num_answers == expected

    def test_pages(self, filled: Store) -> None:
        by = (UsageGroup.DAY, UsageGroup.KEY)
        whole = filled.usage.report(UsageQuery(group_by=by))
        pages = [filled.usage.report(UsageQuery(group_by=by, limit=4, offset=offset)) for offset in (0, 4, 8)]
        assert [row for page in pages for row in page.rows] == list(whole.rows)
        assert {page.count for page in pages} == {whole.count} == {9}
        assert {page.total for page in pages} == {whole.total}


def test_it_is_kept_for_so_many_days(database_url: str, store: Store, clock: Clock) -> None:
    keeping = Store(database_url, clock, usage_retention_days=10)
    today = clock().date()
    for days in (11, 10, 0):
        key = UsageKey(today - timedelta(days=days), "ada")
        keeping.usage.add(batch(20 - days, (key, UsageCounts(num_requests=1))))
    assert [row.day for row in keeping.usage.report(UsageQuery()).rows] == [today, today - timedelta(days=10)]
    keeping.close()


class TestTraining:
    def test_a_run_s_seconds_count_with_what_it_reserves(self, store: Store, clock: Clock) -> None:
        store.jobs.add(job_record(owner="ada", key_id="key-1"))
        store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
        reserved = Progress(Phase.WAITING_FOR_RESOURCES, "", 2, reserved_cpus=8.0, reserved_gpus=2.0)
        store.jobs.report("job-1", 1, reserved)
        for seconds in (10.0, 25.0):
            store.jobs.report("job-1", 1, Progress(Phase.TRAINING, "", 5, train_seconds=seconds))
        clock.advance(86400)
        store.jobs.end("job-1", 1, status=JobStatus.COMPLETED, summary=run_summary(train_seconds=30.0))
        store.jobs.end("job-1", 1, status=JobStatus.COMPLETED, summary=run_summary(train_seconds=30.0))  # a repeat
        report = store.usage.report(UsageQuery(group_by=(UsageGroup.DAY, UsageGroup.KEY, UsageGroup.ADAPTER)))
        found = [
            (row.key_id, row.adapter_id, row.counts.training_cpu_s, row.counts.training_gpu_s) for row in report.rows
        ]
        assert found == [("key-1", "job-1", 40.0, 10.0), ("key-1", "job-1", 200.0, 50.0)]

    def test_steps_that_are_done_again_are_not_counted_down(self, store: Store) -> None:
        store.jobs.add(job_record(owner="ada"))
        store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
        for attempt, seconds in ((1, 20.0), (2, 15.0), (2, 30.0)):
            if attempt == 2 and store.jobs.get("job-1").attempt == 1:
                store.jobs.requeue("job-1", 1, "lost")
                store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=2)
            store.jobs.report("job-1", attempt, Progress(Phase.TRAINING, "", 5, train_seconds=seconds))
        assert total(store).training_cpu_s == 35.0, "20, then 15 again"

    def test_usage_outlives_the_job(self, store: Store) -> None:
        store.jobs.add(job_record(owner="ada", status=JobStatus.RUNNING, submission_id="ray", attempt=1))
        store.jobs.end("job-1", 1, status=JobStatus.COMPLETED, summary=run_summary(train_seconds=5.0))
        store.jobs.delete("job-1")
        assert total(store, UsageQuery(model="job-1")).training_cpu_s == 5.0


class TestMetrics:
    def test_owners_beyond_a_number_are_counted_together(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(usage_sums, "MAX_OWNERS", 2)
        for number, owner in enumerate(["ada", "bob", "eve", "kim", "ada"], start=1):
            store.usage.add(batch(number, (UsageKey(DAY, owner), UsageCounts(num_requests=number))))
        name = metrics.USAGE_REQUESTS_TOTAL.name
        shown = {dict(s.labels)["owner"]: s.value for s in store.metrics.samples() if s.name == name}
        assert shown == {"ada": 6, "bob": 2, "other": 7}

    def test_waiting_jobs_by_owner(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metric_store, "MAX_OWNERS", 1)
        for number, owner in enumerate(["ada", "bob", "bob", "eve"]):
            store.jobs.add(job_record(f"job-{number}", owner=owner))
        name = metrics.QUEUE_LENGTH_BY_OWNER.name
        shown = {dict(s.labels)["owner"]: s.value for s in store.metrics.samples() if s.name == name}
        assert shown == {"bob": 2, "other": 2}
