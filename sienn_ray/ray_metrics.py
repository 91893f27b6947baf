"""A mirror of all metrics on Ray's own metrics endpoint, as `ray_sienn_...`, for its dashboard and Grafana.

Ray names a metric once in a process and forgets a process's gauges soon after it has stopped setting them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, assert_never

from sienn_ray.metrics import TRACKER_METRICS, Metric, Sample

_lock = threading.Lock()
_registered: dict[str, Any] = {}
# What of a histogram can be shown without its single values.
_SUFFIXES = ("", "_sum", "_count")


class RayMirror:
    """Passes a `Recorder`'s measurements on to `ray.util.metrics`."""

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        _of(metric).inc(amount, tags=labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        _of(metric).observe(value, tags=labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Say what a gauge shows now."""
        _of(metric).set(value, tags=labels)


def mirror_samples(samples: Iterable[Sample]) -> None:
    """Show the tracker's own metrics as gauges, which restarts don't set back: the database has the totals.

    Others are left out, since the processes that count them mirror them themselves. To be called every few seconds.
    """
    own = {f"{metric.name}{suffix}": metric for metric in TRACKER_METRICS for suffix in _SUFFIXES}
    for sample in samples:
        metric = own.get(sample.name)
        if metric is not None:
            _of(Metric(sample.name, "gauge", metric.help, metric.labels)).set(sample.value, tags=dict(sample.labels))


def _of(metric: Metric) -> Any:
    with _lock:
        if metric.name not in _registered:
            _registered[metric.name] = _register(metric)
        return _registered[metric.name]


def _register(metric: Metric) -> Any:
    from ray.util import metrics  # not before it is needed: the import takes a second

    match metric.kind:
        case "counter":
            return metrics.Counter(metric.name, metric.help, tag_keys=metric.labels)
        case "gauge":
            return metrics.Gauge(metric.name, metric.help, tag_keys=metric.labels)
        case "histogram":
            return metrics.Histogram(metric.name, metric.help, boundaries=list(metric.buckets), tag_keys=metric.labels)
        case _:
            assert_never(metric.kind)
