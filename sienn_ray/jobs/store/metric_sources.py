"""Processes that count, and the last batch that came from each, so that a repeated one counts once."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.jobs.store.tables import metric_sources

# A batch is repeated within minutes or never, and a process that has been silent for so long is gone.
_LIFETIME = timedelta(days=1)


def is_new(connection: sa.Connection, source: str, number: int, moment: datetime) -> bool:
    """Note a batch, and return whether it has not come before."""
    of_source = metric_sources.c.source == source
    last = connection.scalar(sa.select(metric_sources.c.last_number).where(of_source))
    if last is None:
        values = {"source": source, "last_number": number, "updated_at": moment}
        connection.execute(sa.insert(metric_sources).values(**values))
    else:
        latest = max(last, number)
        connection.execute(sa.update(metric_sources).where(of_source).values(last_number=latest, updated_at=moment))
    return last is None or number > last


def prune(connection: sa.Connection, moment: datetime) -> None:
    """Forget processes that are gone."""
    connection.execute(sa.delete(metric_sources).where(metric_sources.c.updated_at < moment - _LIFETIME))
