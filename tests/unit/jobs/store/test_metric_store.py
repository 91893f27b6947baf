from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from sienn_ray import metrics
from sienn_ray.jobs.schema import JobStatus, Overview
from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.metric_sums import labels_text
from sienn_ray.jobs.store.store import Store
from sienn_ray.metrics import Labels, MetricBatch, Recorder, Sample, observation
from tests.support.fakes_jobs import Clock, dataset_record, job_record

A: Labels = (("base_model", "a"),)
B: Labels = (("base_model", "b"),)
TOKENS = metrics.GENERATION_TOKENS_TOTAL
LOADED = metrics.ADAPTERS_LOADED


def values(store: Store, name: str) -> dict[Labels, float]:
    found = [sample for sample in store.metrics.samples() if sample.name == name]
    assert len({sample.labels for sample in found}) == len(found), "each series is there once"
    return {sample.labels: sample.value for sample in found}


def counted(number: float, labels: Labels = A) -> Sample:
    return Sample(TOKENS.name, labels, number)


def batch(number: int, *increments: Sample, source: str = "one", gauges: Sequence[Sample] = ()) -> MetricBatch:
    return MetricBatch(source, number, increments, tuple(gauges))


# Counters and histograms


def test_batches_add_up_over_sources(store: Store) -> None:
    store.metrics.add(batch(1, counted(5), counted(1, B)))
    store.metrics.add(batch(2, counted(2.5)))
    store.metrics.add(batch(1, counted(10), source="two"))
    assert values(store, TOKENS.name) == {A: 17.5, B: 1}


@pytest.mark.parametrize("numbers", [[1, 1], [1, 2, 2, 1], [1, 2, 1, 2, 2]])
def test_repeated_batch_counts_once(store: Store, numbers: list[int]) -> None:
    for number in numbers:
        store.metrics.add(batch(number, counted(5)))
    assert values(store, TOKENS.name) == {A: 5 * max(numbers)}


def test_batch_may_name_a_series_twice(store: Store) -> None:
    store.metrics.add(batch(1, counted(5), counted(6)))
    assert values(store, TOKENS.name) == {A: 11}


def test_labels_in_any_order_are_one_series(store: Store) -> None:
    store.metrics.add(
        batch(1, Sample("x_total", (("a", "1"), ("b", "2")), 1), Sample("x_total", (("b", "2"), ("a", "1")), 1))
    )
    assert values(store, "x_total") == {(("a", "1"), ("b", "2")): 2}
    assert labels_text((("b", "2"), ("a", "1"))) == '{"a":"1","b":"2"}'


def test_histograms_add_up(store: Store) -> None:
    for number, seconds in enumerate([0.02, 0.02, 1e9], start=1):
        store.metrics.add(batch(number, *observation(metrics.TIME_TO_FIRST_TOKEN_SECONDS, seconds, A)))
    name = metrics.TIME_TO_FIRST_TOKEN_SECONDS.name
    assert values(store, f"{name}_count") == {A: 3}
    assert values(store, f"{name}_sum")[A] == pytest.approx(1e9 + 0.04)
    buckets = {dict(labels)["le"]: value for labels, value in values(store, f"{name}_bucket").items()}
    assert buckets == {"0.025": 2, "+Inf": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_nothing_spoils_a_counter(store: Store, value: float) -> None:
    store.metrics.add(batch(1, counted(5), counted(value), counted(value, B), gauges=[Sample(LOADED.name, B, value)]))
    assert values(store, TOKENS.name) == {A: 5}
    assert values(store, LOADED.name) == ({B: -1.0} if value == -1.0 else {})


@pytest.mark.parametrize("text", ["a\0b", "\ud800", '"}', "⛴", "x" * 2000])
def test_any_label_comes_back(store: Store, text: str) -> None:
    for number in (1, 2):
        store.metrics.add(batch(number, counted(1, (("base_model", text),))))
    assert values(store, TOKENS.name) == {(("base_model", text),): 2}


def test_concurrent_batches_are_all_counted(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.metrics.add(batch(1, counted(1), source=f"s{number}")), range(24)))
    assert values(store, TOKENS.name) == {A: 24}


def test_recorder_that_sends_everything_twice(store: Store) -> None:
    recorder = Recorder()
    for _ in range(3):
        recorder.inc(TOKENS, 7, base_model="a")
        recorder.set(LOADED, 2, base_model="a")
        sent = recorder.take()
        assert sent is not None
        store.metrics.add(sent)
        store.metrics.add(sent)
        recorder.confirm(sent)
    assert values(store, TOKENS.name) == {A: 21}
    assert values(store, LOADED.name) == {A: 2}


def test_counters_survive_a_restart(store: Store, database_url: str) -> None:
    store.metrics.add(batch(1, counted(5)))
    reopened = Store(database_url)
    reopened.metrics.add(batch(1, counted(5)))
    reopened.metrics.add(batch(2, counted(1)))
    assert values(reopened, TOKENS.name) == {A: 6}
    reopened.close()


# Gauges


def loaded(number: float, labels: Labels = A) -> Sample:
    return Sample(LOADED.name, labels, number)


def test_gauges_are_summed_over_sources(store: Store) -> None:
    store.metrics.add(batch(1, gauges=[loaded(3), loaded(1, B)]))
    store.metrics.add(batch(1, gauges=[loaded(4)], source="two"))
    assert values(store, LOADED.name) == {A: 7, B: 1}


def test_gauges_replace_those_of_their_source(store: Store) -> None:
    store.metrics.add(batch(1, gauges=[loaded(3), loaded(1, B)]))
    store.metrics.add(batch(1, gauges=[loaded(4)], source="two"))
    store.metrics.add(batch(2, gauges=[loaded(2)]))
    assert values(store, LOADED.name) == {A: 6}
    store.metrics.add(batch(2, gauges=[loaded(1)]))
    assert values(store, LOADED.name) == {A: 5}, "a repeated batch has the gauges as they are now"
    store.metrics.add(batch(3))
    assert values(store, LOADED.name) == {A: 4}


def test_gauges_of_a_source_that_is_gone_expire(store: Store, clock: Clock) -> None:
    store.metrics.add(batch(1, gauges=[loaded(3)]))
    clock.advance(40)
    store.metrics.add(batch(1, gauges=[loaded(4)], source="two"))
    clock.advance(20)
    assert values(store, LOADED.name) == {A: 7}
    clock.advance(1)
    assert values(store, LOADED.name) == {A: 4}
    clock.advance(60)
    assert values(store, LOADED.name) == {}


def test_old_sources_are_forgotten(store: Store, clock: Clock) -> None:
    for number in range(20):
        store.metrics.add(batch(1, counted(1), gauges=[loaded(1)], source=f"source-{number}"))
        clock.advance(timedelta(hours=6).total_seconds())
    with store.database.reading() as connection:
        rows = [
            connection.scalar(sa.select(sa.func.count()).select_from(table))
            for table in (tables.metric_sources, tables.metric_gauges, tables.metric_values)
        ]
    # Of one day; of one minute; the counter, and those of jobs by status that the migrations have begun.
    assert rows == [5, 1, len(JobStatus)]
    assert values(store, TOKENS.name) == {A: 20}


# Jobs and datasets


def by_status(store: Store, name: str) -> dict[str, float]:
    return {dict(labels)["status"]: value for labels, value in values(store, name).items()}


def test_empty_database_has_all_numbers_at_zero(store: Store) -> None:
    store.datasets.delete("dataset-1")
    zeros = {status.value: 0.0 for status in JobStatus}
    assert by_status(store, metrics.JOBS.name) == by_status(store, metrics.JOBS_TOTAL.name) == zeros
    for metric in (metrics.QUEUE_LENGTH, metrics.DATASETS, metrics.DATASETS_SIZE_BYTES):
        assert values(store, metric.name) == {(): 0.0}
    assert store.overview() == Overview(dict.fromkeys(JobStatus, 0), 0, 0, None, 0, 0)


def test_numbers_of_jobs_and_datasets(store: Store) -> None:
    store.datasets.add(dataset_record("dataset-2", size_bytes=7))
    for number in range(1, 6):
        store.jobs.add(job_record(f"job-{number}"))
    store.jobs.update("job-1", status=JobStatus.RUNNING)
    store.jobs.cancel("job-2")
    store.jobs.update("job-3", status=JobStatus.FAILED)
    now = {"pending": 2, "running": 1, "paused": 0, "completed": 0, "failed": 1, "cancelled": 1}
    assert by_status(store, metrics.JOBS.name) == now
    assert store.overview().num_jobs == now
    assert values(store, metrics.QUEUE_LENGTH.name) == {(): 2}
    assert values(store, metrics.DATASETS.name) == {(): 2}
    assert values(store, metrics.DATASETS_SIZE_BYTES.name) == {(): 5_000_000_007}
    assert (store.overview().num_datasets, store.overview().datasets_size_bytes) == (2, 5_000_000_007)


def test_counter_of_jobs_never_falls(store: Store) -> None:
    seen = []
    for number in range(1, 4):
        job_id = f"job-{number}"
        store.jobs.add(job_record(job_id))
        store.jobs.update(job_id, status=JobStatus.RUNNING, attempt=1)
        store.jobs.note_start(job_id, 1, "x")
        store.jobs.requeue(job_id, 1, "lost")
        store.jobs.update(job_id, status=JobStatus.FAILED)
        seen.append(by_status(store, metrics.JOBS_TOTAL.name))
        store.jobs.delete(job_id)
        seen.append(by_status(store, metrics.JOBS_TOTAL.name))
    for number, total in enumerate(seen):
        jobs = number // 2 + 1
        entered = {"pending": jobs, "running": jobs, "failed": jobs}
        assert total == {"paused": 0, "completed": 0, "cancelled": 0, **entered}
    assert values(store, f"{metrics.QUEUE_WAIT_SECONDS.name}_count") == {(): 3}


def test_wait_is_never_negative(store: Store, clock: Clock) -> None:
    store.jobs.add(job_record(created_at=clock.now + timedelta(hours=1)))  # another machine's clock
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    store.jobs.note_start("job-1", 1, "x")
    assert values(store, f"{metrics.QUEUE_WAIT_SECONDS.name}_sum") == {(): 0.0}


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize(("hours", "number"), [(0, 1), (23.99, 1), (24, 1), (24.01, 0)])
@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED])
def test_what_ended_within_a_day(
    store: Store, clock: Clock, status: JobStatus, hours: float, number: int, is_deleted: bool
) -> None:
    store.jobs.add(job_record(status=JobStatus.RUNNING))
    store.jobs.update("job-1", status=status)
    if is_deleted:
        store.jobs.delete("job-1")
    clock.advance(timedelta(hours=hours).total_seconds())
    overview = store.overview()
    ended = {JobStatus.COMPLETED: overview.num_completed_24h, JobStatus.FAILED: overview.num_failed_24h}
    assert ended.pop(status) == number
    assert list(ended.values()) == [0]


def test_mean_time_of_training(store: Store, clock: Clock) -> None:
    for number, seconds in [(1, 60.0), (2, 90.0), (3, 1000.0)]:
        job_id = f"job-{number}"
        store.jobs.add(job_record(job_id))
        store.jobs.update(job_id, status=JobStatus.RUNNING, attempt=1)
        store.jobs.note_start(job_id, 1, "x")
        clock.advance(seconds)
        store.jobs.update(job_id, status=JobStatus.FAILED if number == 3 else JobStatus.COMPLETED)
    assert store.overview().avg_training_s == pytest.approx(75, abs=1)
