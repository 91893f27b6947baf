"""Look-up of completed jobs, which alone have an adapter."""

from __future__ import annotations

from sienn_ray.api.deps import Backends
from sienn_ray.api.schemas import ids
from sienn_ray.errors import JobStateError
from sienn_ray.jobs.schema import JobRecord, JobStatus


async def completed_job(backends: Backends, job_id: str, purpose: str) -> JobRecord:
    """A job whose adapter can be used.

    Args:
        backends: See `Backends`.
        job_id: The job's id.
        purpose: What the adapter is wanted for, for the message.

    Raises:
        NotFoundError: There is no such job.
        JobStateError: It isn't completed.
    """
    job = await backends.tracker.job(ids.job_id(job_id))
    if job.status is not JobStatus.COMPLETED:
        raise JobStateError(f"Job status is '{job.status}', {purpose} is only available for completed jobs")
    return job
