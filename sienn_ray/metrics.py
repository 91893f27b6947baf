"""Every metric by name, and the batches in which values travel from the processes that count to the tracker.

A process counts into a `Recorder` and sends what came together as a `MetricBatch`. The tracker adds batches up in the
database, so that a scrape gives the same numbers whichever replica answers it.
"""

from __future__ import annotations

import logging
import threading
import uuid
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

logger = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]
MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Args:
        name: As Prometheus shows it; a counter's ends with `_total`.
        kind: How values add up.
        help: One line of description.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram, without infinity.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One number. A histogram's numbers are named `<name>_bucket` (label `le`), `<name>_sum` and `<name>_count`.

    Buckets are not cumulative here: each counts what fell between the bound before and its own.
    """

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True)
class MetricBatch:
    """Everything that one process counted since its last batch.

    Args:
        source: Id of the process, new at each start.
        number: 1, 2, 3, ...; a batch that is sent again has the same number and is added once.
        increments: Counters and histograms, to be added.
        gauges: Values as they are now; they count for this source alone, and for a minute.
    """

    source: str
    number: int
    increments: tuple[Sample, ...] = ()
    gauges: tuple[Sample, ...] = ()


_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_QUEUE_BUCKETS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)

# What the tracker counts.
JOBS_TOTAL = Metric(
    "sienn_jobs_total",
    "counter",
    "Total number of jobs created, by status: how many have ever entered it (pending is the creation)",
    ("status",),
)
JOBS = Metric("sienn_jobs", "gauge", "Jobs that are in a status now", ("status",))
QUEUE_LENGTH = Metric("sienn_queue_length", "gauge", "Jobs that wait for their start now")
QUEUE_WAIT_SECONDS = Metric(
    "sienn_queue_wait_seconds", "histogram", "Seconds from a job's creation to its first start", (), _QUEUE_BUCKETS_S
)
SUPERVISION_HEARTBEAT_AGE_SECONDS = Metric(
    "sienn_supervision_heartbeat_age_seconds",
    "gauge",
    "Seconds since the job tracker last looked after its jobs, or exports, to the end",
    ("kind",),
)
TRAINING_TOKENS_TOTAL = Metric("sienn_training_tokens_total", "counter", "Tokens that training runs have processed")
TRAINING_SECONDS_TOTAL = Metric("sienn_training_seconds_total", "counter", "Seconds that training runs have taken")
WEBHOOK_DELIVERIES_TOTAL = Metric(
    "sienn_webhook_deliveries_total",
    "counter",
    "Attempts to deliver to webhooks that were delivered or failed; deliveries given up, or dropped for want of room",
    ("result",),
)
DATASETS = Metric("sienn_datasets", "gauge", "Datasets that are kept now")
DATASETS_SIZE_BYTES = Metric("sienn_datasets_size_bytes", "gauge", "Bytes of the datasets that are kept now")

# What the ingress counts.
REQUEST_SECONDS = Metric(
    "sienn_http_request_duration_seconds",
    "histogram",
    "Seconds from a request's arrival to the last byte of its response, by route template",
    ("method", "route", "status"),
    _REQUEST_BUCKETS_S,
)

# What engines count.
GENERATION_TOKENS_TOTAL = Metric(
    "sienn_generation_tokens_total", "counter", "Tokens that engines have generated", ("base_model",)
)
PROMPT_TOKENS_TOTAL = Metric(
    "sienn_prompt_tokens_total", "counter", "Tokens of prompts that engines have read", ("base_model",)
)
TIME_TO_FIRST_TOKEN_SECONDS = Metric(
    "sienn_time_to_first_token_seconds",
    "histogram",
    "Seconds from a request's arrival at the engine to its first token, waiting and loading included",
    ("base_model",),
    _FIRST_TOKEN_BUCKETS_S,
)
ADAPTERS_LOADED = Metric("sienn_adapters_loaded", "gauge", "Adapters that engines hold in memory now", ("base_model",))
ADAPTER_CACHE_HITS_TOTAL = Metric(
    "sienn_adapter_cache_hits_total", "counter", "Requests whose adapter was in memory", ("base_model",)
)
ADAPTER_CACHE_MISSES_TOTAL = Metric(
    "sienn_adapter_cache_misses_total", "counter", "Requests whose adapter had to be loaded", ("base_model",)
)

# By owner: the first ones that there are, up to a bound, and all others together.
OTHER_OWNERS = "other"
QUEUE_LENGTH_BY_OWNER = Metric(
    "sienn_queue_length_by_owner", "gauge", "Jobs that wait for their start now, by owner", ("owner",)
)


def _of_owners(name: str, what: str) -> Metric:
    return Metric(f"sienn_usage_{name}_total", "counter", f"{what}, by owner", ("owner",))


USAGE_REQUESTS_TOTAL = _of_owners("requests", "Requests to the API")
USAGE_ANSWERS_TOTAL = _of_owners("answers", "Answers of models")
USAGE_PROMPT_TOKENS_TOTAL = _of_owners("prompt_tokens", "Tokens of prompts")
USAGE_COMPLETION_TOKENS_TOTAL = _of_owners("completion_tokens", "Tokens that were generated")
USAGE_ENGINE_SECONDS_TOTAL = _of_owners("engine_seconds", "Seconds that answers were in an engine's batch")
USAGE_TRAINING_CPU_SECONDS_TOTAL = _of_owners("training_cpu_seconds", "Seconds of training times reserved CPUs")
USAGE_TRAINING_GPU_SECONDS_TOTAL = _of_owners("training_gpu_seconds", "Seconds of training times reserved GPUs")
USAGE_UPLOADED_BYTES_TOTAL = _of_owners("uploaded_bytes", "Bytes of request bodies")
USAGE_DOWNLOADED_BYTES_TOTAL = _of_owners("downloaded_bytes", "Bytes of response bodies")

TRACKER_METRICS = (
    JOBS_TOTAL,
    JOBS,
    QUEUE_LENGTH,
    QUEUE_WAIT_SECONDS,
    SUPERVISION_HEARTBEAT_AGE_SECONDS,
    TRAINING_TOKENS_TOTAL,
    TRAINING_SECONDS_TOTAL,
    WEBHOOK_DELIVERIES_TOTAL,
    DATASETS,
    DATASETS_SIZE_BYTES,
    QUEUE_LENGTH_BY_OWNER,
    USAGE_REQUESTS_TOTAL,
    USAGE_ANSWERS_TOTAL,
    USAGE_PROMPT_TOKENS_TOTAL,
    USAGE_COMPLETION_TOKENS_TOTAL,
    USAGE_ENGINE_SECONDS_TOTAL,
    USAGE_TRAINING_CPU_SECONDS_TOTAL,
    USAGE_TRAINING_GPU_SECONDS_TOTAL,
    USAGE_UPLOADED_BYTES_TOTAL,
    USAGE_DOWNLOADED_BYTES_TOTAL,
)
METRICS = (
    *TRACKER_METRICS,
    REQUEST_SECONDS,
    GENERATION_TOKENS_TOTAL,
    PROMPT_TOKENS_TOTAL,
    TIME_TO_FIRST_TOKEN_SECONDS,
    ADAPTERS_LOADED,
    ADAPTER_CACHE_HITS_TOTAL,
    ADAPTER_CACHE_MISSES_TOTAL,
)


def bucket_of(metric: Metric, value: float) -> str:
    """The `le` of the histogram bucket that counts a value, as text: `0.5`, or `+Inf` above every bound."""
    place = bisect_left(metric.buckets, value)
    return "+Inf" if place == len(metric.buckets) else str(metric.buckets[place])


def observation(metric: Metric, value: float, labels: Labels = ()) -> tuple[Sample, Sample, Sample]:
    """Return the samples that one value adds to a histogram."""
    return (
        Sample(f"{metric.name}_bucket", (*labels, ("le", bucket_of(metric, value))), 1.0),
        Sample(f"{metric.name}_sum", labels, value),
        Sample(f"{metric.name}_count", labels, 1.0),
    )


class Meter(Protocol):
    """Takes measurements. Every value of a label must come from a small set that no user can widen."""

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        ...

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Say what a gauge shows now."""
        ...


class Recorder:
    """Counts for one process, in memory until a batch is taken; safe to use from several threads.

    A batch that wasn't confirmed is taken again under its own number, and what comes in meanwhile waits for the next
    one, so nothing is lost or added twice however sending fails.

    Args:
        mirror: Gets every measurement as well.
        max_series: Series kept between two batches; measurements of further ones are dropped, so that memory is bounded
            whatever happens.
    """

    def __init__(self, mirror: Meter | None = None, *, max_series: int = 20_000) -> None:
        self.source = uuid.uuid4().hex
        self._mirror = mirror
        self._max_series = max_series
        self._lock = threading.Lock()
        self._increments: dict[tuple[str, Labels], float] = {}
        self._gauges: dict[tuple[str, Labels], float] = {}
        self._unconfirmed: MetricBatch | None = None
        self._number = 0
        self._is_full = False

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter; nothing happens for an amount of zero."""
        if amount <= 0:
            return
        self._add(Sample(metric.name, _labels(metric, labels), amount))
        if self._mirror is not None:
            self._mirror.inc(metric, amount, **labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._add(*observation(metric, value, _labels(metric, labels)))
        if self._mirror is not None:
            self._mirror.observe(metric, value, **labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Say what a gauge shows now."""
        with self._lock:
            self._put(self._gauges, (metric.name, _labels(metric, labels)), value)
        if self._mirror is not None:
            self._mirror.set(metric, value, **labels)

    def _add(self, *samples: Sample) -> None:
        with self._lock:
            for sample in samples:
                key = (sample.name, sample.labels)
                self._put(self._increments, key, self._increments.get(key, 0.0) + sample.value)

    def _put(self, series: dict[tuple[str, Labels], float], key: tuple[str, Labels], value: float) -> None:
        if key in series or len(series) < self._max_series:
            series[key] = value
        elif not self._is_full:
            self._is_full = True
            logger.error("%d series wait to be sent; measurements of others, %s first, are dropped", len(series), key)

    def take(self) -> MetricBatch | None:
        """Return the batch to be sent next, or None if there is nothing. The gauges are as they are now."""
        with self._lock:
            gauges = _samples(self._gauges)
            if self._unconfirmed is None and (self._increments or gauges):
                self._number += 1
                self._unconfirmed = MetricBatch(self.source, self._number, _samples(self._increments))
                self._increments = {}
            return self._unconfirmed and replace(self._unconfirmed, gauges=gauges)

    def confirm(self, batch: MetricBatch) -> None:
        """Note that the tracker has a batch, so it is not sent again."""
        with self._lock:
            if self._unconfirmed is not None and self._unconfirmed.number == batch.number:
                self._unconfirmed = None


def _labels(metric: Metric, given: Mapping[str, str]) -> Labels:
    """Labels in the metric's order.

    Raises:
        ValueError: They are not those of the metric.
    """
    if set(given) != set(metric.labels):
        raise ValueError(f"{metric.name} has the labels {list(metric.labels)}, not {sorted(given)}")
    return tuple((name, given[name]) for name in metric.labels)


def _samples(series: Mapping[tuple[str, Labels], float]) -> tuple[Sample, ...]:
    return tuple(Sample(name, labels, value) for (name, labels), value in series.items())
