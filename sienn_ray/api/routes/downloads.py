"""Download a fine-tuned model: the adapter, or the file of an export."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import FileResponse

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import AllBackendsDep, BackendsDep
from sienn_ray.api.exports.links import ExportLinks, download_name
from sienn_ray.api.http.attachments import send_stored_file
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.stored_file import StoredFileResponse
from sienn_ray.api.lists.completed import completed_job
from sienn_ray.api.schemas.common import JOB_ID
from sienn_ray.api.schemas.ids import ExportIdPath, JobIdPath
from sienn_ray.errors import ArtifactError
from sienn_ray.export.archive import adapter_files, check_complete, iter_zip
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.ids import not_found
from sienn_ray.storage import Storage

router = APIRouter(prefix="/api", tags=["Model Export"])

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "ETag": {"description": "SHA-256 of the file.", "schema": {"type": "string"}},
            "Content-Length": {"description": "Its bytes.", "schema": {"type": "integer"}},
        },
    },
    206: {"description": "The part of the file that the header `Range` asks for"},
}


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
    dependencies=[needs(Scope.EXPORT), takes_place(Kind.DOWNLOAD)],
)
async def download_model(job_id: JobIdPath, backends: BackendsDep) -> StreamingResponse:
    """The adapter with its configuration and tokenizer, as `peft` and `transformers` load them."""
    job = await completed_job(backends, job_id, "model download")
    manifest = await asyncio.to_thread(backends.storage.manifest, job.adapter_key)
    check_complete(manifest, job.adapter_key)
    return StreamingResponse(
        iter_zip(backends.storage, job.adapter_key, adapter_files(manifest)),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="model_{job.id}.zip"'},
    )


@router.head("/export-files/{job_id}/{export_id}/{file_name}", include_in_schema=False, response_model=None)
@router.get(
    "/export-files/{job_id}/{export_id}/{file_name}",
    summary="Download the file of an export",
    response_class=FileResponse,
    response_model=None,
    responses={
        **_FILE,
        **documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    dependencies=[takes_place(Kind.DOWNLOAD)],
)
async def download_export(
    job_id: JobIdPath,
    export_id: ExportIdPath,
    file_name: Annotated[str, Path(max_length=255, description="The file.", examples=["model-Q4_K_M.gguf"])],
    backends: AllBackendsDep,
    request: Request,
    expires: Annotated[
        str, Query(max_length=20, description="When the link expires, as Unix time.", examples=["1762945200"])
    ] = "",
    signature: Annotated[str, Query(max_length=100, description="What makes the link valid.", examples=["mP3x"])] = "",
) -> FileResponse | StreamingResponse:
    """The file, with Range requests. The link is the `download_url` of an export, and expires; it needs no key."""
    links: ExportLinks = request.app.state.export_links
    await links.check(job_id, export_id, file_name, expires, signature)
    export = await backends.tracker.export(export_id)
    if export.job_id != job_id or export.file_name != file_name:
        raise not_found("Export", export_id)
    return await asyncio.to_thread(_file, backends.storage, export)


def _file(storage: Storage, export: ExportRecord) -> FileResponse | StreamingResponse:
    key, saved_as = f"{export.key}/{export.file_name}", download_name(export)
    assert export.size_bytes is not None  # nosec B101 # for the type checker
    size_bytes = storage.size_bytes(key)
    if size_bytes != export.size_bytes:
        raise ArtifactError(
            f"{storage.location(key)} has {size_bytes} bytes and should have {export.size_bytes}; delete the export "
            "and export again"
        )
    sha256 = str(export.sha256)
    if not storage.is_local:
        return send_stored_file(storage, key, filename=saved_as, size_bytes=export.size_bytes, sha256=sha256)
    headers = {"ETag": f'"{sha256}"', "X-Content-Type-Options": "nosniff"}
    return StoredFileResponse(
        storage.path(key), headers=headers, media_type="application/octet-stream", filename=saved_as
    )
