"""Facts of a job as one flat JSON object: in the column `facts` of the database, and in the API's answers.

The record has them in typed parts. A fact that none of them takes, since an earlier version wrote it, is kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, TypedDict, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sienn_ray.jobs.schema import JobPhase, JobRecord
from sienn_ray.training.reporting import RunProgress
from sienn_ray.training.summary import RunSummary


class FactFields(TypedDict, total=False):
    """Fields of a `JobRecord` that facts are kept in."""

    phase: JobPhase
    pause_requested_at: datetime
    run: RunProgress
    summary: RunSummary
    other_facts: dict[str, Any]


_PROGRESS_TYPES = {name: TypeAdapter(kind) for name, kind in get_type_hints(RunProgress).items()}
_FLOATS = frozenset(name for name, kind in get_type_hints(RunProgress).items() if kind == float | None)
_SUMMARY_NAMES = tuple(field.name for field in fields(RunSummary))
# Facts that earlier versions didn't have are None there, and left out.
_LATER_NAMES = frozenset({"train_rewards", "eval_rewards"})
_SUMMARY_TYPE = TypeAdapter(RunSummary)


def to_flat(job: JobRecord) -> dict[str, Any]:
    """All facts of a job by name; those that aren't known are left out."""
    flat = dict(job.other_facts)
    if job.phase is not None:
        flat["phase"] = job.phase.value
    if job.pause_requested_at is not None:
        flat["pause_requested_at"] = job.pause_requested_at.isoformat()
    flat |= job.run.known()
    if job.summary is not None:
        flat |= _json_like(job.summary)
    return flat


def of_flat(facts: Mapping[str, Any]) -> FactFields:
    """The typed parts of facts as the database has them; `to_flat` gives the same facts again."""
    rest = dict(facts)
    read: FactFields = {}
    summary = _summary(rest)
    read["run"] = _progress(rest)
    if summary is not None:
        read["summary"] = summary
        rest = {name: value for name, value in rest.items() if name not in _SUMMARY_NAMES}
    if (phase := _phase(rest.get("phase"))) is not None:
        read["phase"] = phase
        del rest["phase"]
    if (requested_at := _moment(rest.get("pause_requested_at"))) is not None:
        read["pause_requested_at"] = requested_at
        del rest["pause_requested_at"]
    read["other_facts"] = rest
    return read


def _progress(rest: dict[str, Any]) -> RunProgress:
    """Take out what a run has reported."""
    taken: dict[str, Any] = {}
    for name in _PROGRESS_TYPES.keys() & rest.keys():
        # JSON has no number that is none: a loss that was reported as NaN comes back as null.
        value = math.nan if rest[name] is None and name in _FLOATS else rest[name]
        if value is not None and _is_valid(_PROGRESS_TYPES[name], value):
            taken[name] = value
            del rest[name]
    return RunProgress(**taken)


def _is_valid(kind: TypeAdapter[Any], value: Any) -> bool:
    try:
        kind.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _summary(facts: Mapping[str, Any]) -> RunSummary | None:
    """The summary of a completed job; None of others, and where an earlier version has left out a part of it."""
    given = {name: facts[name] for name in _SUMMARY_NAMES if name in facts}
    if given.keys() | _LATER_NAMES < set(_SUMMARY_NAMES):
        return None
    try:
        summary = _SUMMARY_TYPE.validate_python(given)
    except ValidationError:
        return None
    return summary if _json_like(summary) == given else None


def _json_like(summary: RunSummary) -> dict[str, Any]:
    history = [_without_later(asdict(record)) for record in summary.loss_history]
    return {**_without_later(asdict(summary)), "loss_history": history}


def _without_later(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None or name not in _LATER_NAMES}


def _phase(text: Any) -> JobPhase | None:
    try:
        return JobPhase(text)
    except ValueError:  # of an earlier version
        return None


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
