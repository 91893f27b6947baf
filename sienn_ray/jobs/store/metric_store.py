"""Metrics, added up over all processes that measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray import metrics
from sienn_ray.jobs.schema import JobStatus, Overview, utc_now
from sienn_ray.jobs.store import metric_sources, overview, queue
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.metric_sums import add_up, labels_text, to_sample
from sienn_ray.jobs.store.tables import metric_gauges, metric_values
from sienn_ray.jobs.store.usage_sums import MAX_OWNERS
from sienn_ray.metrics import MetricBatch, Sample

_GAUGE_LIFE = timedelta(seconds=60)


class MetricStore:
    """Counters, histograms and gauges.

    Args:
        database: Where they are kept.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add(self, batch: MetricBatch) -> None:
        """Take what a process has counted; a batch that came before counts once."""
        now = self._clock()
        with self._database.writing() as connection:
            if metric_sources.is_new(connection, batch.source, batch.number, now):
                add_up(connection, batch.increments)
            self._replace_gauges(connection, batch, now)
            self._prune(connection, now)

    def _replace_gauges(self, connection: sa.Connection, batch: MetricBatch, now: datetime) -> None:
        connection.execute(sa.delete(metric_gauges).where(metric_gauges.c.source == batch.source))
        values = {
            (sample.name, labels_text(sample.labels)): sample.value
            for sample in batch.gauges
            if math.isfinite(sample.value)
        }
        rows = [
            {"source": batch.source, "name": name, "labels": labels, "value": value, "updated_at": now}
            for (name, labels), value in values.items()
        ]
        if rows:
            connection.execute(sa.insert(metric_gauges), rows)

    def _prune(self, connection: sa.Connection, now: datetime) -> None:
        connection.execute(sa.delete(metric_gauges).where(metric_gauges.c.updated_at < now - _GAUGE_LIFE))
        metric_sources.prune(connection, now)

    def samples(self) -> list[Sample]:
        """Return all samples, those about jobs and datasets included, as they are now."""
        now = self._clock()
        columns = (metric_gauges.c.name, metric_gauges.c.labels)
        gauges = (
            sa.select(*columns, sa.func.sum(metric_gauges.c.value).label("value"))
            .where(metric_gauges.c.updated_at >= now - _GAUGE_LIFE)
            .group_by(*columns)
            .order_by(*columns)
        )
        values = sa.select(metric_values).order_by(metric_values.c.name, metric_values.c.labels)
        with self._database.reading() as connection:
            kept = [to_sample(row) for query in (values, gauges) for row in connection.execute(query).mappings()]
            waiting = _waiting_by_owner(queue.lengths(connection))
            return kept + _statuses_without(kept) + _gauges_of(overview.read(connection, now)) + waiting


def _waiting_by_owner(lengths: Mapping[str, int]) -> list[Sample]:
    """The owners with the most waiting jobs, and the others together, so that the number of series is bounded."""
    largest = sorted(lengths, key=lambda owner: (-lengths[owner], owner))[:MAX_OWNERS]
    shown = {owner: lengths[owner] for owner in largest}
    if others := sum(lengths.values()) - sum(shown.values()):
        shown[metrics.OTHER_OWNERS] = shown.get(metrics.OTHER_OWNERS, 0) + others
    name = metrics.QUEUE_LENGTH_BY_OWNER.name
    return [Sample(name, (("owner", owner),), float(number)) for owner, number in shown.items()]


def _statuses_without(kept: list[Sample]) -> list[Sample]:
    """Zeros of the statuses that no job has ever entered: a first step from nothing shows as no increase."""
    counted = {sample.labels for sample in kept if sample.name == metrics.JOBS_TOTAL.name}
    labels = ((("status", status.value),) for status in JobStatus)
    return [Sample(metrics.JOBS_TOTAL.name, each, 0.0) for each in labels if each not in counted]


def _gauges_of(numbers: Overview) -> list[Sample]:
    by_status = [
        Sample(metrics.JOBS.name, (("status", status.value),), float(number))
        for status, number in numbers.num_jobs.items()
    ]
    return [
        *by_status,
        Sample(metrics.QUEUE_LENGTH.name, (), float(numbers.num_jobs[JobStatus.PENDING])),
        Sample(metrics.DATASETS.name, (), float(numbers.num_datasets)),
        Sample(metrics.DATASETS_SIZE_BYTES.name, (), float(numbers.datasets_size_bytes)),
    ]
