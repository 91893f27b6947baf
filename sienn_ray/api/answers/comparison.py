"""One question for a base model and several adapters of it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from sienn_ray.api.answers.asked_models import AskedModel
from sienn_ray.api.answers.fields import answer_fields
from sienn_ray.api.deps import Backends
from sienn_ray.api.http.errors import fault_of
from sienn_ray.api.schemas.common import ErrorResponse
from sienn_ray.api.schemas.inference import ComparedAnswer, ComparedFailure
from sienn_ray.errors import InvalidInputError, JobStateError
from sienn_ray.inference.engine import GenerationRequest
from sienn_ray.jobs.schema import JobRecord, JobStatus


async def compared_models(backends: Backends, job_ids: Sequence[str]) -> list[AskedModel]:
    """The base model of some jobs, and their adapters.

    Raises:
        NotFoundError: There is no such job.
        JobStateError: Some aren't completed.
        InvalidInputError: They are of several base models.
    """
    jobs = [await backends.tracker.job(job_id) for job_id in job_ids]
    unfinished = [f"{job.id} is '{job.status}'" for job in jobs if job.status is not JobStatus.COMPLETED]
    if unfinished:
        raise JobStateError(f"only completed jobs can be compared: job {', job '.join(unfinished)}")
    if len({job.config.base_model for job in jobs}) > 1:
        raise InvalidInputError(f"only adapters of one base model can be compared: job {', job '.join(map(_of, jobs))}")
    return [AskedModel.base_of(jobs[0]), *map(AskedModel.adapter_of, jobs)]


def _of(job: JobRecord) -> str:
    return f"{job.id} is of {job.config.base_model}"


async def compared_answer(
    asked: AskedModel,
    asking: GenerationRequest,
    backends: Backends,
    scope: Scope,
) -> ComparedAnswer | ComparedFailure:
    """Ask one of the models, and return its answer or its error.

    Args:
        asked: Who is asked.
        asking: What it is asked, a conversation.
        backends: See `Backends`.
        scope: Of the user's request, for the log.
    """
    job_id = None if asked.job is None else asked.job.id
    try:
        result = await backends.engines.generate(asked.base_model, asking)
    except Exception as error:
        detail = ErrorResponse(**fault_of(scope, error).as_json())
        return ComparedFailure(job_id=job_id, model_path=asked.path(backends.storage), error=detail)
    said = asking.prompt if isinstance(asking.prompt, str) else asking.prompt[-1].content
    return ComparedAnswer(job_id=job_id, **answer_fields(asked, said, result, backends.storage))
