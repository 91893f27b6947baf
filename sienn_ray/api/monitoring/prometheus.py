"""The tracker's samples in Prometheus' text format."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, assert_never

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sienn_ray.metrics import METRICS, Labels, Metric, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Scalar = TypeVar("_Scalar", CounterMetricFamily, GaugeMetricFamily)
_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
# By name of the sample, then by its labels.
_Values = Mapping[str, Mapping[Labels, float]]


def render(samples: Iterable[Sample]) -> bytes:
    """Every metric with its description and its samples, also those that have no samples yet."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    return generate_latest(registry)


class _Samples(Collector):
    """Samples that stand already, in the form that prometheus_client collects."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        values: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        for sample in samples:
            # Gauges of several processes come one by one, and add up too.
            values[sample.name][tuple(sorted(sample.labels))] += sample.value
        self._values = values

    def collect(self) -> Iterator[_Family]:
        """One family for each metric."""
        for metric in METRICS:
            yield _family(metric, self._values)


def _family(metric: Metric, values: _Values) -> _Family:
    match metric.kind:
        case "counter":
            counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            # A counter that starts at zero shows its first step as an increase.
            return _filled(counter, metric, values, default={} if metric.labels else {(): 0.0})
        case "gauge":
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            return _filled(gauge, metric, values, default={})
        case "histogram":
            return _histogram(metric, values)
        case _:
            assert_never(metric.kind)


def _filled(family: _Scalar, metric: Metric, values: _Values, default: Mapping[Labels, float]) -> _Scalar:
    for labels, value in sorted({**default, **values.get(metric.name, {})}.items()):
        given = dict(labels)
        if _fits(metric, given):
            family.add_metric([given[name] for name in metric.labels], value)
    return family


def _histogram(metric: Metric, values: _Values) -> HistogramMetricFamily:
    counts: dict[tuple[str, ...], dict[float, float]] = defaultdict(lambda: defaultdict(float))
    if not metric.labels:
        counts[()] = defaultdict(float)
    for labels, value in values.get(f"{metric.name}_bucket", {}).items():
        given = dict(labels)
        bound = float(given.pop("le", "inf"))
        if _fits(metric, given):
            counts[tuple(given[name] for name in metric.labels)][bound] += value
    sums = {_in_order(metric, labels): value for labels, value in values.get(f"{metric.name}_sum", {}).items()}
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for label_values, by_bound in sorted(counts.items()):
        family.add_metric(label_values, _cumulative(metric, by_bound), sum_value=sums.get(label_values, 0.0))
    return family


def _fits(metric: Metric, labels: Mapping[str, str]) -> bool:
    """Whether a sample is of this metric as it is now, not as an older version counted it."""
    return set(labels) == set(metric.labels)


def _in_order(metric: Metric, labels: Labels) -> tuple[str, ...]:
    given = dict(labels)
    return tuple(given[name] for name in metric.labels if name in given)


def _cumulative(metric: Metric, by_bound: Mapping[float, float]) -> Sequence[tuple[str, float]]:
    """Buckets as Prometheus wants them: each counts everything up to its bound, and the last has no bound."""
    total, buckets = 0.0, []
    for bound in sorted({*metric.buckets, *by_bound, math.inf}):
        total += by_bound.get(bound, 0.0)
        buckets.append(("+Inf" if bound == math.inf else str(bound), total))
    return buckets
