"""The curves of a job: a point for each progress report that tells of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sienn_ray.jobs.schema import MetricPoint
from sienn_ray.jobs.store.tables import job_metric_points as points
from sienn_ray.training.reporting import Progress

MAX_POINTS = 5000
# Curves by the reports' fields that they are drawn from.
_CURVES = {
    "loss": "current_loss",
    **{
        name: name
        for name in (
            "eval_loss",
            "learning_rate",
            "tokens_per_s",
            "rewards_chosen",
            "rewards_rejected",
            "rewards_margins",
            "rewards_accuracies",
            "eval_rewards_chosen",
            "eval_rewards_rejected",
            "eval_rewards_margins",
            "eval_rewards_accuracies",
        )
    },
}


def last_step(connection: sa.Connection, job_id: str, attempt: int) -> int | None:
    """The furthest step that an attempt has told of."""
    query = sa.select(sa.func.max(points.c.step)).where(points.c.job_id == job_id, points.c.attempt == attempt)
    step: int | None = connection.scalar(query)
    return step


def add(
    connection: sa.Connection, job_id: str, attempt: int, step: int, epoch: int, progress: Progress, moment: datetime
) -> None:
    """Add a point, or what it knows to the one at the same step.

    An attempt that resumes from a checkpoint goes over steps again; what an earlier attempt told of steps behind this
    one is gone with that attempt, and so are its points.
    """
    overtaken = (points.c.job_id == job_id) & (points.c.step > step) & (points.c.attempt < attempt)
    connection.execute(sa.delete(points).where(overtaken))
    known = {curve: _finite(getattr(progress, field)) for curve, field in _CURVES.items()}
    known = {name: value for name, value in known.items() if value is not None}
    changes = {**known, "attempt": attempt, "epoch": epoch, "created_at": moment}
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(
        insert(points)
        .values(job_id=job_id, step=step, **changes)
        .on_conflict_do_update(index_elements=["job_id", "step"], set_=changes)
    )
    _thin_out(connection, job_id)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _thin_out(connection: sa.Connection, job_id: str) -> None:
    """Drop every second point of a curve that has grown too long; evaluations and both ends stay."""
    of_job = points.c.job_id == job_id
    if (connection.scalar(sa.select(sa.func.count()).select_from(points).where(of_job)) or 0) <= MAX_POINTS:
        return
    query = sa.select(points.c.step).where(of_job).order_by(points.c.step)
    last = connection.scalar(sa.select(sa.func.max(points.c.step)).where(of_job))
    plain = connection.scalars(query.where(points.c.eval_loss.is_(None), points.c.step != last)).all()
    dropped = [{"dropped_job": job_id, "dropped_step": step} for step in plain[1::2]]
    at_step = (points.c.job_id == sa.bindparam("dropped_job")) & (points.c.step == sa.bindparam("dropped_step"))
    connection.execute(sa.delete(points).where(at_step), dropped)


def read(connection: sa.Connection, job_id: str, max_points: int) -> list[MetricPoint]:
    """Points in order of steps, thinned out evenly to `max_points`; both ends stay, and evaluations before others."""
    query = sa.select(points).where(points.c.job_id == job_id).order_by(points.c.step)
    rows = connection.execute(query).mappings().all()
    kept = kept_places([row["eval_loss"] is not None for row in rows], max_points)
    return [_to_point(rows[place]) for place in kept]


def _to_point(row: sa.RowMapping) -> MetricPoint:
    fields = ("step", "epoch", *_CURVES, "created_at")
    return MetricPoint.model_validate({name: row[name] for name in fields})


def kept_places(is_evaluation: Sequence[bool], max_points: int) -> list[int]:
    """Return the places of the points that stay when there are more than `max_points`.

    Args:
        is_evaluation: For each point, whether it tells of an evaluation.
        max_points: Points that may stay.

    Returns:
        Rising places: the last one and the first one, then evaluations, at even distances where they are too many,
        and others at even distances.
    """
    number = len(is_evaluation)
    if number <= max_points:
        return list(range(number))
    if max_points < 2:
        return [number - 1][:max_points]
    kept = {0, number - 1}
    kept.update(_even([place for place in range(number) if is_evaluation[place] and place not in kept], max_points - 2))
    kept.update(_even([place for place in range(number) if place not in kept], max_points - len(kept)))
    return sorted(kept)


def _even(places: Sequence[int], room: int) -> Sequence[int]:
    """As many of some places as there is room for, at even distances."""
    if len(places) <= room:
        return places
    return [places[(2 * index + 1) * len(places) // (2 * room)] for index in range(room)]


def delete(connection: sa.Connection, job_id: str) -> None:
    """Forget a job's curves."""
    connection.execute(sa.delete(points).where(points.c.job_id == job_id))
