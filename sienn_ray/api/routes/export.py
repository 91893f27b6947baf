"""Take a fine-tuned model home."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from sienn_ray.api.completed import completed_job
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.errors import documented
from sienn_ray.api.ids import JobIdPath
from sienn_ray.api.schemas.common import JOB_ID
from sienn_ray.api.schemas.exports import ExportFormat, ExportFormatList
from sienn_ray.export.archive import check_complete, iter_zip

router = APIRouter(prefix="/api", tags=["Model Export"])

_FORMATS = ExportFormatList(
    formats=[
        ExportFormat(
            name="ollama",
            description="Ollama Modelfile format for local deployment",
            supported=False,
            parameters=["model_name", "temperature", "top_p", "top_k"],
            note="Not made by this version; GET /api/download-model/{job_id} gives the adapter to convert",
        ),
        ExportFormat(
            name="huggingface",
            description="HuggingFace format (adapter + tokenizer)",
            supported=True,
            parameters=[],
            note="GET /api/download-model/{job_id} gives it as a ZIP archive",
        ),
        ExportFormat(
            name="gguf",
            description="GGUF quantized format for llama.cpp",
            supported=False,
            parameters=["quantization"],
            note="Not made by this version; llama.cpp's convert_lora_to_gguf.py converts the adapter of "
            "GET /api/download-model/{job_id}",
        ),
    ]
)


@router.get("/export-formats", summary="Get list of supported export formats", response_model_exclude_none=True)
async def export_formats() -> ExportFormatList:
    """Every format that a fine-tuned model can be taken home in, and whether this server makes it."""
    return _FORMATS


@router.get(
    "/download-model/{job_id}",
    summary="Download fine-tuned model as ZIP archive",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "ZIP archive",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                "Content-Disposition": {
                    "description": "The file's name.",
                    "schema": {"type": "string"},
                    "example": f'attachment; filename="model_{JOB_ID}.zip"',
                }
            },
        },
        **documented(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    },
)
async def download_model(job_id: JobIdPath, backends: BackendsDep) -> StreamingResponse:
    """The adapter with its configuration and tokenizer, as `peft` and `transformers` load them."""
    job = await completed_job(backends, job_id, "model download")
    manifest = await asyncio.to_thread(backends.storage.manifest, job.adapter_key)
    check_complete(manifest, job.adapter_key)
    return StreamingResponse(
        iter_zip(backends.storage, job.adapter_key),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="model_{job.id}.zip"'},
    )
