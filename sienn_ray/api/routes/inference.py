"""Talk to a fine-tuned model."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter

from sienn_ray.api.completed import completed_job
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.errors import documented
from sienn_ray.api.schemas.inference import TestModelRequest, TestModelResponse
from sienn_ray.inference.engine import GenerationRequest
from sienn_ray.jobs.schema import utc_now

router = APIRouter(prefix="/api", tags=["Inference"])


@router.post(
    "/test-model",
    summary="Test a fine-tuned model with a prompt",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def test_model(body: TestModelRequest, backends: BackendsDep) -> TestModelResponse:
    """Answer a prompt; the first request to a base model waits until its engine has loaded it."""
    job = await completed_job(backends, body.job_id, "model testing")
    request = GenerationRequest(
        adapter_id=job.id if body.use_adapter else None,
        adapter_key=job.adapter_key if body.use_adapter else None,
        **body.model_dump(exclude={"job_id", "use_adapter"}),
    )
    result = await backends.engines.generate(job.config.base_model, request)
    return TestModelResponse(
        job_id=job.id,
        prompt=body.prompt,
        generated_text=result.text,
        model_path=backends.storage.location(job.adapter_key) if body.use_adapter else job.config.base_model,
        generation_time=round(result.generation_time_s, 3),
        timestamp=utc_now(),
        rendered_prompt=result.rendered_prompt,
        prompt_tokens=result.num_prompt_tokens,
        completion_tokens=result.num_generated_tokens,
        finish_reason="stop" if result.finish_reason == "stop" else "length",
        adapter_cached=result.adapter_cached,
    )


test_model.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest makes of its name
