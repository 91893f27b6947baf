"""The status changes that jobs and exports may make; any other is refused, whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sienn_ray.errors import TransitionError
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobStatus

# RUNNING to PENDING is a run that was lost and waits for its next attempt; FAILED and CANCELLED to PENDING is a retry.
JOB_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.PENDING, JobStatus.PAUSED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.PENDING, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.PENDING}),
    JobStatus.CANCELLED: frozenset({JobStatus.PENDING}),
}

# To PENDING goes an export whose run was lost, whose file is gone, or that is asked for again.
EXPORT_TRANSITIONS: dict[ExportStatus, frozenset[ExportStatus]] = {
    ExportStatus.PENDING: frozenset({ExportStatus.RUNNING, ExportStatus.CANCELLED}),
    ExportStatus.RUNNING: frozenset(
        {ExportStatus.PENDING, ExportStatus.COMPLETED, ExportStatus.FAILED, ExportStatus.CANCELLED}
    ),
    ExportStatus.COMPLETED: frozenset({ExportStatus.PENDING}),
    ExportStatus.FAILED: frozenset({ExportStatus.PENDING}),
    ExportStatus.CANCELLED: frozenset({ExportStatus.PENDING}),
}

S = TypeVar("S", JobStatus, ExportStatus)


def check_job_transition(job_id: str, current: JobStatus, new: JobStatus) -> None:
    """Refuse a job's status change that `JOB_TRANSITIONS` doesn't list.

    Raises:
        TransitionError: It isn't listed.
    """
    _check(f"job {job_id}", JOB_TRANSITIONS, current, new)


def check_export_transition(export_id: str, current: ExportStatus, new: ExportStatus) -> None:
    """Refuse an export's status change that `EXPORT_TRANSITIONS` doesn't list.

    Raises:
        TransitionError: It isn't listed.
    """
    _check(f"export {export_id}", EXPORT_TRANSITIONS, current, new)


def _check(record: str, table: Mapping[S, frozenset[S]], current: S, new: S) -> None:
    if new not in table[current]:
        allowed = ", ".join(sorted(table[current])) or "nothing, it is final"
        raise TransitionError(f"{record} is '{current}' and can't become '{new}'; from there it can become: {allowed}")
