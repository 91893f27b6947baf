"""Which jobs may start: in order of arrival, up to the number that may run at once."""

from __future__ import annotations

from collections.abc import Sequence

from sienn_ray.jobs.schema import JobRecord, JobStatus


def in_order_of_arrival(newest_first: Sequence[JobRecord]) -> list[JobRecord]:
    """Pending jobs as they came; one that lost its run keeps its place ahead of later ones."""
    return [job for job in reversed(newest_first) if job.status is JobStatus.PENDING]


def admissible(pending: Sequence[JobRecord], num_running: int, max_running: int) -> list[JobRecord]:
    """The jobs to start now.

    Args:
        pending: In order of arrival.
        num_running: Jobs that run already.
        max_running: Jobs that may run at once.
    """
    return list(pending[: max(0, max_running - num_running)])


def position(pending: Sequence[JobRecord], job_id: str) -> int | None:
    """1-based place of a job in the queue, or None when it isn't waiting."""
    return next((place for place, job in enumerate(pending, start=1) if job.id == job_id), None)
