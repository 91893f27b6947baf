from __future__ import annotations

import threading
from collections import Counter

import pytest

from sienn_ray.metrics import (
    ADAPTERS_LOADED,
    GENERATION_TOKENS_TOTAL,
    JOBS_TOTAL,
    METRICS,
    QUEUE_LENGTH,
    QUEUE_WAIT_SECONDS,
    REQUEST_SECONDS,
    TRAINING_TOKENS_TOTAL,
    Metric,
    MetricBatch,
    Recorder,
    Sample,
    bucket_of,
    observation,
)


def values(batch: MetricBatch | None) -> dict[tuple[str, tuple[str, ...]], float]:
    """Increments by name and label values."""
    assert batch is not None
    return {(sample.name, tuple(value for _, value in sample.labels)): sample.value for sample in batch.increments}


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, "0.005"), (0.005, "0.005"), (0.0050001, "0.01"), (1.0, "1.0"), (299.9, "300.0"), (300.1, "+Inf")],
)
def test_bound_belongs_to_its_bucket(value: float, bucket: str) -> None:
    assert bucket_of(REQUEST_SECONDS, value) == bucket


def test_every_bucket_is_the_number_it_says() -> None:
    for metric in METRICS:
        assert [float(bucket_of(metric, bound)) for bound in metric.buckets] == list(metric.buckets)


def test_one_observation_counts_once_in_bucket_sum_and_count() -> None:
    bucket, total, count = observation(QUEUE_WAIT_SECONDS, 7.5)
    assert bucket == Sample("sienn_queue_wait_seconds_bucket", (("le", "15.0"),), 1.0)
    assert total == Sample("sienn_queue_wait_seconds_sum", (), 7.5)
    assert count == Sample("sienn_queue_wait_seconds_count", (), 1.0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_prometheus_conventions(metric: Metric) -> None:
    assert metric.name.startswith("sienn_")
    assert metric.name.endswith("_total") is (metric.kind == "counter")
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_ms", "_mb", "_minutes"))
    assert "le" not in metric.labels
    assert bool(metric.buckets) is (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help


def test_names_are_there_once() -> None:
    assert max(Counter(metric.name for metric in METRICS).values()) == 1


def test_recorder_without_measurements_has_nothing_to_send() -> None:
    recorder = Recorder()
    recorder.inc(TRAINING_TOKENS_TOTAL, 0)
    assert recorder.take() is None


def test_measurements_of_a_series_add_up() -> None:
    recorder = Recorder()
    recorder.inc(JOBS_TOTAL, status="failed")
    recorder.inc(JOBS_TOTAL, 2, status="failed")
    recorder.inc(JOBS_TOTAL, status="pending")
    recorder.observe(QUEUE_WAIT_SECONDS, 2.0)
    recorder.observe(QUEUE_WAIT_SECONDS, 3.0)
    assert values(recorder.take()) == {
        ("sienn_jobs_total", ("failed",)): 3.0,
        ("sienn_jobs_total", ("pending",)): 1.0,
        ("sienn_queue_wait_seconds_bucket", ("5.0",)): 2.0,
        ("sienn_queue_wait_seconds_sum", ()): 5.0,
        ("sienn_queue_wait_seconds_count", ()): 2.0,
    }


def test_gauge_is_sent_again_and_again_with_its_latest_value() -> None:
    recorder = Recorder()
    recorder.set(ADAPTERS_LOADED, 1, base_model="m")
    first = recorder.take()
    assert first is not None
    recorder.confirm(first)
    recorder.set(ADAPTERS_LOADED, 3, base_model="m")
    second = recorder.take()
    assert second == MetricBatch(recorder.source, 2, (), (Sample("sienn_adapters_loaded", (("base_model", "m"),), 3),))


def test_unconfirmed_batch_comes_again_and_later_counts_wait_for_the_next() -> None:
    recorder = Recorder()
    recorder.inc(TRAINING_TOKENS_TOTAL, 5)
    first = recorder.take()
    recorder.inc(TRAINING_TOKENS_TOTAL, 7)
    assert recorder.take() == first
    assert first is not None
    recorder.confirm(first)
    second = recorder.take()
    assert second is not None
    assert (first.number, second.number) == (1, 2)
    assert values(second) == {("sienn_training_tokens_total", ()): 7.0}


def test_late_confirmation_of_an_earlier_batch_changes_nothing() -> None:
    recorder = Recorder()
    recorder.inc(TRAINING_TOKENS_TOTAL, 5)
    first = recorder.take()
    assert first is not None
    recorder.confirm(first)
    recorder.inc(TRAINING_TOKENS_TOTAL, 7)
    second = recorder.take()
    recorder.confirm(first)
    assert recorder.take() == second


def test_two_recorders_are_two_sources() -> None:
    assert Recorder().source != Recorder().source


@pytest.mark.parametrize("labels", [{}, {"status": "a", "more": "b"}, {"state": "a"}])
def test_wrong_labels_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="sienn_jobs_total has the labels"):
        Recorder().inc(JOBS_TOTAL, 1.0, **labels)


def test_order_of_labels_does_not_make_another_series() -> None:
    recorder = Recorder()
    recorder.observe(REQUEST_SECONDS, 0.1, method="GET", route="/", status="200")
    recorder.observe(REQUEST_SECONDS, 0.1, status="200", route="/", method="GET")
    assert values(recorder.take())[("sienn_http_request_duration_seconds_count", ("GET", "/", "200"))] == 2.0


def test_memory_is_bounded_and_known_series_still_count(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(max_series=2)
    for number in range(100):
        recorder.inc(GENERATION_TOKENS_TOTAL, base_model=f"m{number}")
    recorder.inc(GENERATION_TOKENS_TOTAL, base_model="m1")
    assert values(recorder.take()) == {
        ("sienn_generation_tokens_total", ("m0",)): 1.0,
        ("sienn_generation_tokens_total", ("m1",)): 2.0,
    }
    assert len(caplog.records) == 1


def test_nothing_is_lost_between_threads_that_count_and_one_that_sends() -> None:
    recorder, received = Recorder(), 0.0

    def count() -> None:
        for _ in range(2_000):
            recorder.inc(TRAINING_TOKENS_TOTAL)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    is_last = False
    while not is_last:
        is_last = not any(thread.is_alive() for thread in threads)
        batch = recorder.take()
        if batch is not None:
            received += sum(sample.value for sample in batch.increments)
            recorder.confirm(batch)
    assert received == 8_000


class ListMeter:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, float, dict[str, str]]] = []

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        self.told.append(("inc", metric.name, amount, labels))

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self.told.append(("observe", metric.name, value, labels))

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.told.append(("set", metric.name, value, labels))


def test_mirror_gets_every_measurement() -> None:
    mirror = ListMeter()
    recorder = Recorder(mirror)
    recorder.inc(JOBS_TOTAL, 2, status="failed")
    recorder.inc(JOBS_TOTAL, 0, status="failed")
    recorder.observe(QUEUE_WAIT_SECONDS, 3.0)
    recorder.set(QUEUE_LENGTH, 4)
    assert mirror.told == [
        ("inc", "sienn_jobs_total", 2, {"status": "failed"}),
        ("observe", "sienn_queue_wait_seconds", 3.0, {}),
        ("set", "sienn_queue_length", 4, {}),
    ]
