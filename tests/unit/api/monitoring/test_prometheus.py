from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable

import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from sienn_ray.api.monitoring.prometheus import render
from sienn_ray.metrics import (
    ADAPTERS_LOADED,
    DATASETS,
    JOBS,
    JOBS_TOTAL,
    METRICS,
    QUEUE_WAIT_SECONDS,
    REQUEST_SECONDS,
    TRAINING_TOKENS_TOTAL,
    Sample,
    observation,
)

REQUEST = (("method", "GET"), ("route", "/health"), ("status", "200"))


def families(text: str) -> dict[tuple[str, str], Family]:
    """By name and type. The parser takes `_total` off a counter's name, so that a gauge may have the same one."""
    return {(family.name, family.type): family for family in text_string_to_metric_families(text)}


def rendered(samples: Iterable[Sample]) -> str:
    text = render(samples).decode()
    check_rules(text)
    return text


def check_rules(text: str) -> None:
    """What `promtool check metrics` looks at, and what makes Prometheus refuse a scrape."""
    assert text.endswith("\n")
    announced = re.findall(r"^# (HELP|TYPE) (\S+) ", text, re.MULTILINE)
    assert len(announced) == len(set(announced)), "HELP or TYPE is there twice"
    assert {name for kind, name in announced if kind == "HELP"} == {name for kind, name in announced if kind == "TYPE"}
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series)), "a series is there twice"
    for (name, kind), family in families(text).items():
        names = {sample.name for sample in family.samples}
        if kind == "counter":
            assert names <= {f"{name}_total"}
        elif kind == "gauge":
            assert names <= {name}
            assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
        else:
            assert kind == "histogram"
            check_histogram(family)
        assert all(math.isfinite(sample.value) for sample in family.samples)
        assert all(sample.value >= 0 for sample in family.samples if kind != "gauge")


def check_histogram(family: Family) -> None:
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    counts, sums = {}, set()
    for sample in family.samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name.endswith("_bucket"):
            buckets[labels].append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_count"):
            counts[labels] = sample.value
        else:
            sums.add(labels)
    assert set(buckets) == set(counts) == sums
    for labels, found in buckets.items():
        bounds, values = [bound for bound, _ in found], [value for _, value in found]
        assert bounds == sorted(bounds)
        assert bounds[-1] == math.inf
        assert values == sorted(values), "not cumulative"
        assert values[-1] == counts[labels]


def test_without_samples_every_metric_is_announced_and_plain_counters_are_zero() -> None:
    text = rendered([])
    for metric in METRICS:
        assert f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n" in text
    assert "sienn_training_tokens_total 0.0\n" in text
    assert "sienn_queue_wait_seconds_count 0.0\n" in text
    assert not re.search(r"^sienn_(jobs|datasets)", text, re.MULTILINE)


def test_counter_looks_as_documented() -> None:
    text = rendered([Sample(JOBS_TOTAL.name, (("status", "completed"),), 37.0)])
    assert '# TYPE sienn_jobs_total counter\nsienn_jobs_total{status="completed"} 37.0\n' in text


def test_gauge_of_the_same_word_stands_beside_the_counter() -> None:
    text = rendered(
        [Sample(JOBS_TOTAL.name, (("status", "failed"),), 5.0), Sample(JOBS.name, (("status", "failed"),), 2.0)]
    )
    assert 'sienn_jobs_total{status="failed"} 5.0\n' in text
    assert 'sienn_jobs{status="failed"} 2.0\n' in text


def test_buckets_become_cumulative() -> None:
    samples = [*observation(QUEUE_WAIT_SECONDS, 3.0), *observation(QUEUE_WAIT_SECONDS, 90_000.0)]
    text = rendered([*samples, *observation(QUEUE_WAIT_SECONDS, 4.0)])
    assert re.findall(r'sienn_queue_wait_seconds_bucket\{le="(.+)"\} (\S+)', text) == [
        ("1.0", "0.0"),
        ("5.0", "2.0"),
        ("15.0", "2.0"),
        ("60.0", "2.0"),
        ("300.0", "2.0"),
        ("900.0", "2.0"),
        ("3600.0", "2.0"),
        ("14400.0", "2.0"),
        ("86400.0", "2.0"),
        ("+Inf", "3.0"),
    ]
    assert "sienn_queue_wait_seconds_sum 90007.0\n" in text


def test_histogram_with_labels_has_all_buckets_for_each_series() -> None:
    other = tuple((name, "POST" if name == "method" else value) for name, value in REQUEST)
    text = rendered([*observation(REQUEST_SECONDS, 0.2, REQUEST), *observation(REQUEST_SECONDS, 1e9, other)])
    lines = re.findall(r"sienn_http_request_duration_seconds_bucket", text)
    assert len(lines) == 2 * (len(REQUEST_SECONDS.buckets) + 1)


def test_order_of_samples_and_of_their_labels_does_not_matter() -> None:
    samples = list(observation(REQUEST_SECONDS, 0.2, REQUEST))
    turned = [Sample(sample.name, sample.labels[::-1], sample.value) for sample in samples[::-1]]
    assert rendered(turned) == rendered(samples)
    assert rendered([*turned, *samples]) == rendered([*samples, *samples])


def test_gauges_of_several_processes_add_up_to_one_series() -> None:
    labels = (("base_model", "m"),)
    text = rendered([Sample(ADAPTERS_LOADED.name, labels, 2.0), Sample(ADAPTERS_LOADED.name, labels, 3.0)])
    assert 'sienn_adapters_loaded{base_model="m"} 5.0\n' in text


def test_bounds_of_an_older_version_still_count() -> None:
    old = Sample(f"{QUEUE_WAIT_SECONDS.name}_bucket", (("le", "7.0"),), 4.0)
    text = rendered([old, *observation(QUEUE_WAIT_SECONDS, 3.0)])
    assert 'sienn_queue_wait_seconds_bucket{le="5.0"} 1.0\nsienn_queue_wait_seconds_bucket{le="7.0"} 5.0\n' in text


@pytest.mark.parametrize(
    "sample",
    [
        Sample("sienn_from_another_version_total", (), 1.0),
        Sample(JOBS_TOTAL.name, (), 1.0),
        Sample(JOBS_TOTAL.name, (("status", "failed"), ("zone", "a")), 1.0),
        Sample(f"{REQUEST_SECONDS.name}_bucket", (("le", "1.0"),), 1.0),
        Sample(f"{REQUEST_SECONDS.name}_sum", (("method", "GET"),), 1.0),
    ],
)
def test_samples_of_another_version_are_left_out(sample: Sample) -> None:
    assert rendered([sample]) == rendered([])


def test_label_values_are_escaped() -> None:
    value = 'a"b\\c\nd'
    text = rendered([Sample(ADAPTERS_LOADED.name, (("base_model", value),), 1.0)])
    (sample,) = families(text)[("sienn_adapters_loaded", "gauge")].samples
    assert sample.labels == {"base_model": value}


def test_large_numbers_stay_exact() -> None:
    text = rendered([Sample(TRAINING_TOKENS_TOTAL.name, (), 123_456_789_012.0), Sample(DATASETS.name, (), 3.0)])
    (sample,) = families(text)[("sienn_training_tokens", "counter")].samples
    assert sample.value == 123_456_789_012.0
