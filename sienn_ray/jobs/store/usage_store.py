"""Usage in the job database: added up by day, key and model, and reported in pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from sienn_ray.access.usage import UsageBatch, UsageCounts, UsageGroup, UsageQuery, UsageReport, UsageRow
from sienn_ray.jobs.store import usage_sums
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.metric_sources import is_new
from sienn_ray.jobs.store.tables import usage

_COLUMNS: dict[UsageGroup, tuple[sa.Column[Any], ...]] = {
    UsageGroup.DAY: (usage.c.day,),
    UsageGroup.OWNER: (usage.c.owner,),
    UsageGroup.KEY: (usage.c.owner, usage.c.key_id),
    UsageGroup.MODEL: (usage.c.base_model,),
    UsageGroup.ADAPTER: (usage.c.base_model, usage.c.adapter_id),
}
_SUMS = [sa.func.coalesce(sa.func.sum(usage.c[name]), 0).label(name) for name in UsageCounts.NAMES]
_IS_FLOAT = frozenset(name for name in UsageCounts.NAMES if name.endswith("_s"))


class UsageStore:
    """Adds up usage, and reports on it; every method is one transaction.

    Args:
        database: Where it is kept.
        clock: The time.
        retention_days: Days that it is kept.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], retention_days: int) -> None:
        self._database = database
        self._clock = clock
        self._retention = timedelta(days=retention_days)

    def add(self, batch: UsageBatch) -> None:
        """Take what a process has counted; a batch that came before counts once."""
        now = self._clock()
        with self._database.writing() as connection:
            if is_new(connection, batch.source, batch.number, now):
                usage_sums.add_up(connection, batch.rows)
            connection.execute(sa.delete(usage).where(usage.c.day < (now - self._retention).date()))

    def report(self, query: UsageQuery) -> UsageReport:
        """Return a page of a report, with the number of its groups and their sum."""
        columns = list(dict.fromkeys(column for group in query.group_by for column in _COLUMNS[group]))
        conditions = _conditions(query)
        groups = sa.select(*columns, *_SUMS).where(*conditions).group_by(*columns)
        order = [column.desc() if column is usage.c.day else column for column in columns]
        page = groups.order_by(*order).limit(query.limit).offset(query.offset) if columns else groups
        with self._database.reading() as connection:
            total = connection.execute(sa.select(*_SUMS).where(*conditions)).mappings().one()
            if not columns:
                return UsageReport((UsageRow(_counts(total)),), 1, _counts(total))
            count = connection.scalar(sa.select(sa.func.count()).select_from(groups.subquery())) or 0
            rows = [dict(row) for row in connection.execute(page).mappings()]
        return UsageReport(tuple(map(_row, rows)), count, _counts(total))


def _conditions(query: UsageQuery) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if query.first_day is not None:
        conditions.append(usage.c.day >= query.first_day)
    if query.last_day is not None:
        conditions.append(usage.c.day <= query.last_day)
    if query.owner is not None:
        conditions.append(usage.c.owner == query.owner)
    if query.key_id is not None:
        conditions.append(usage.c.key_id == query.key_id)
    if query.model is not None:
        conditions.append(sa.or_(usage.c.base_model == query.model, usage.c.adapter_id == query.model))
    return conditions


def _row(row: dict[str, Any]) -> UsageRow:
    groups = {name: value for name, value in row.items() if name not in UsageCounts.NAMES}
    return UsageRow(_counts(row), **groups)


def _counts(row: Any) -> UsageCounts:
    values: dict[str, Any] = {name: (float if name in _IS_FLOAT else int)(row[name]) for name in UsageCounts.NAMES}
    return UsageCounts(**values)
