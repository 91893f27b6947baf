"""Usage as rows that are added to, and the metrics by owner that rise with them."""

from __future__ import annotations

import json
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sienn_ray import metrics
from sienn_ray.access.usage import UsageCounts, UsageKey
from sienn_ray.jobs.store import metric_sums
from sienn_ray.jobs.store.tables import metric_values, usage
from sienn_ray.metrics import OTHER_OWNERS, Metric, Sample

# Owners with series of their own; others are added up as `other`.
MAX_OWNERS = 50

_KEYS = ("day", "owner", "key_id", "base_model", "adapter_id")
_METRICS: dict[str, Metric] = {
    "num_requests": metrics.USAGE_REQUESTS_TOTAL,
    "num_answers": metrics.USAGE_ANSWERS_TOTAL,
    "prompt_tokens": metrics.USAGE_PROMPT_TOKENS_TOTAL,
    "completion_tokens": metrics.USAGE_COMPLETION_TOKENS_TOTAL,
    "engine_s": metrics.USAGE_ENGINE_SECONDS_TOTAL,
    "training_cpu_s": metrics.USAGE_TRAINING_CPU_SECONDS_TOTAL,
    "training_gpu_s": metrics.USAGE_TRAINING_GPU_SECONDS_TOTAL,
    "uploaded_bytes": metrics.USAGE_UPLOADED_BYTES_TOTAL,
    "downloaded_bytes": metrics.USAGE_DOWNLOADED_BYTES_TOTAL,
}


def add_up(connection: sa.Connection, rows: Iterable[tuple[UsageKey, UsageCounts]]) -> None:
    """Add to what was used."""
    totals: dict[UsageKey, UsageCounts] = {}
    for key, counts in rows:
        totals[key] = totals.get(key, UsageCounts()) + counts
    if not totals:
        return
    insert = sqlite.insert(usage) if connection.dialect.name == "sqlite" else postgresql.insert(usage)
    sums = {name: usage.c[name] + insert.excluded[name] for name in UsageCounts.NAMES}
    upsert = insert.on_conflict_do_update(index_elements=list(_KEYS), set_=sums)
    connection.execute(upsert, [_values(key, counts) for key, counts in totals.items()])
    _count(connection, totals)


def _values(key: UsageKey, counts: UsageCounts) -> dict[str, object]:
    return {name: getattr(key if name in _KEYS else counts, name) for name in (*_KEYS, *UsageCounts.NAMES)}


def _count(connection: sa.Connection, totals: dict[UsageKey, UsageCounts]) -> None:
    """Have the counters by owner rise."""
    known = _owners_with_series(connection)
    samples = []
    for key, counts in totals.items():
        if key.owner not in known and len(known) < MAX_OWNERS:
            known.add(key.owner)
        owner = key.owner if key.owner in known else OTHER_OWNERS
        rises = ((metric, float(getattr(counts, name))) for name, metric in _METRICS.items())
        samples += [Sample(metric.name, (("owner", owner),), rise) for metric, rise in rises if rise > 0]
    metric_sums.add_up(connection, samples)


def _owners_with_series(connection: sa.Connection) -> set[str]:
    names = [metric.name for metric in _METRICS.values()]
    labels = connection.scalars(sa.select(metric_values.c.labels).where(metric_values.c.name.in_(names)).distinct())
    return {json.loads(each)["owner"] for each in labels} - {OTHER_OWNERS}
