"""Counters and histograms in the database: every addition is one row's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sienn_ray.jobs.store.tables import metric_values
from sienn_ray.metrics import Labels, Sample


def add_up(connection: sa.Connection, samples: Iterable[Sample]) -> None:
    """Add to counters and histograms; what would make one fall, or is no number at all, is left out."""
    totals: dict[tuple[str, str], float] = {}
    for sample in samples:
        if math.isfinite(sample.value) and sample.value >= 0:
            key = (sample.name, labels_text(sample.labels))
            totals[key] = totals.get(key, 0.0) + sample.value
    if not totals:
        return
    insert = sqlite.insert(metric_values) if connection.dialect.name == "sqlite" else postgresql.insert(metric_values)
    upsert = insert.on_conflict_do_update(
        index_elements=["name", "labels"], set_={"value": metric_values.c.value + insert.excluded.value}
    )
    values = [{"name": name, "labels": labels, "value": value} for (name, labels), value in totals.items()]
    connection.execute(upsert, values)


def labels_text(labels: Labels) -> str:
    """Labels as one text, the same for the same labels in any order."""
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":"))


def to_sample(row: sa.RowMapping) -> Sample:
    """The sample that a row holds."""
    return Sample(row["name"], tuple(json.loads(row["labels"]).items()), float(row["value"]))
