"""Export a fine-tuned model: ask for it, watch it, end it, delete it."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Annotated, assert_never

from fastapi import APIRouter, Query, Request, Response

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.callers import principal_of
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.exports.links import ExportLinks
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, take_place
from sienn_ray.api.http.streams import unless_gone
from sienn_ray.api.lists.completed import completed_job
from sienn_ray.api.lists.paging import cursor_query, limit_query
from sienn_ray.api.lists.whole import listed
from sienn_ray.api.schemas.exports import (
    DeletedExport,
    ExportList,
    ExportModelRequest,
    ExportModelResponse,
)
from sienn_ray.api.schemas.ids import ExportIdPath, JobIdPath
from sienn_ray.errors import CapacityError, ConflictError, ExportError, NotFoundError, SiennError, StorageFullError
from sienn_ray.export.archive import check_complete
from sienn_ray.export.targets import target_of
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.ids import not_found
from sienn_ray.jobs.schema import Page, utc_now
from sienn_ray.storage import MANIFEST_NAME

router = APIRouter(prefix="/api", tags=["Model Export"])

_OF_ONE_JOB = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_FIRST_LOOK_S, _LATER_LOOK_S = 0.05, 0.5
_MEMORY_RETRY_S = 60


@router.post(
    "/export-model/{job_id}",
    summary="Export model to a specific format",
    responses={
        202: {
            "model": ExportModelResponse,
            "description": "The export is being made; `GET /api/exports/{job_id}` says how far it is.",
        },
        **_OF_ONE_JOB,
        **documented(
            HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INSUFFICIENT_STORAGE
        ),
    },
    dependencies=[needs(Scope.EXPORT)],
)
async def export_model(
    job_id: JobIdPath,
    body: ExportModelRequest,
    backends: BackendsDep,
    request: Request,
    response: Response,
    wait: Annotated[
        bool, Query(description="Wait for the export for a while (SIENN_EXPORT_WAIT_S).", examples=[True])
    ] = True,
) -> ExportModelResponse:
    """Export a fine-tuned model, or give the export that is there already: the same choices are the same export.

    One that takes longer than a request waits is answered with a 202, and so is any with `wait=false`.
    """
    job = await completed_job(backends, job_id, "model export")
    options = body.options(job.id)
    await asyncio.to_thread(target_of(options.format).check_packages, options)
    manifest = await asyncio.to_thread(backends.storage.manifest, job.adapter_key)
    check_complete(manifest, job.adapter_key)
    now = utc_now()
    export = await backends.tracker.request_export(
        ExportRecord(
            id=options.export_id(job.id),
            job_id=job.id,
            base_model=job.config.base_model,
            job_name=job.name,
            options=options,
            created_at=now,
            updated_at=now,
        )
    )
    export = await _made_again_if_gone(export, backends)
    if wait and not export.status.is_final:
        take_place(request, Kind.WAIT)
        export = await unless_gone(request, _ended(export, backends))
        _raise_failure(export)
    if not export.status.is_final:
        response.status_code = HTTPStatus.ACCEPTED
    return await _shown(export, _links(request), request)


@router.get(
    "/exports/{job_id}",
    summary="List the exports of a job",
    responses={**_OF_ONE_JOB, **documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=[needs(Scope.READ, Scope.EXPORT)],
)
async def list_exports(
    job_id: JobIdPath,
    backends: BackendsDep,
    request: Request,
    limit: Annotated[int | None, limit_query("Exports")] = None,
    cursor: Annotated[str | None, cursor_query("NDI=")] = None,
) -> ExportList:
    """A job's exports, the newest first, each with a new link if it is complete: all of them, or page by page."""

    async def read(size: int, begin: str | None) -> Page[ExportRecord]:
        return await backends.tracker.exports(job_id, size, begin)

    page = await listed(read, limit, cursor)
    shown = [await _shown(export, _links(request), request) for export in page.records]
    return ExportList(exports=shown, count=page.count, next_cursor=page.next_cursor)


@router.get(
    "/exports/{job_id}/{export_id}",
    summary="Get an export",
    responses=_OF_ONE_JOB,
    dependencies=[needs(Scope.READ, Scope.EXPORT)],
)
async def get_export(
    job_id: JobIdPath, export_id: ExportIdPath, backends: BackendsDep, request: Request
) -> ExportModelResponse:
    """One export, with a new link if it is complete."""
    return await _shown(await _of_job(job_id, export_id, backends), _links(request), request)


@router.post(
    "/exports/{job_id}/{export_id}/cancel",
    summary="Cancel an export",
    responses={**_OF_ONE_JOB, **documented(HTTPStatus.CONFLICT)},
    dependencies=[needs(Scope.EXPORT)],
)
async def cancel_export(
    job_id: JobIdPath, export_id: ExportIdPath, backends: BackendsDep, request: Request
) -> ExportModelResponse:
    """End an export that waits or runs; what it has written is deleted."""
    await _of_job(job_id, export_id, backends)
    return await _shown(await backends.tracker.cancel_export(export_id), _links(request), request)


@router.delete(
    "/exports/{job_id}/{export_id}",
    summary="Delete an export",
    responses=_OF_ONE_JOB,
    dependencies=[needs(Scope.EXPORT)],
)
async def delete_export(job_id: JobIdPath, export_id: ExportIdPath, backends: BackendsDep) -> DeletedExport:
    """Delete an export and its file; one that runs is stopped.

    It is gone at once; its file goes in a moment, or as soon as storage is there again.
    """
    export = await _of_job(job_id, export_id, backends)
    await backends.tracker.delete_export(export.id)
    return DeletedExport(export_id=export.id)


async def _of_job(job_id: str, export_id: str, backends: Backends) -> ExportRecord:
    export = await backends.tracker.export(export_id)
    if export.job_id != job_id:
        raise not_found("Export", export_id)
    return export


async def _made_again_if_gone(export: ExportRecord, backends: Backends) -> ExportRecord:
    if export.status is not ExportStatus.COMPLETED:
        return export
    if await asyncio.to_thread(backends.storage.is_published, export.key):
        return export
    return await backends.tracker.redo_export(export.id, f"{MANIFEST_NAME} was gone; the export is made again")


async def _ended(export: ExportRecord, backends: Backends) -> ExportRecord:
    """The export once it has ended, or as it is when the wait is over."""
    deadline = time.monotonic() + backends.settings.export_wait_s
    look_s = _FIRST_LOOK_S
    while not export.status.is_final and time.monotonic() < deadline:
        await asyncio.sleep(look_s)
        look_s = min(2 * look_s, _LATER_LOOK_S)
        try:
            export = await backends.tracker.export(export.id)
        except NotFoundError:
            raise ConflictError(f"export {export.id} was deleted meanwhile; ask for it again") from None
    return export


def _raise_failure(export: ExportRecord) -> None:
    """Tell who waited why there is nothing."""
    match export.status:
        case ExportStatus.CANCELLED:
            raise ConflictError(f"export {export.id} was cancelled meanwhile; ask for it again")
        case ExportStatus.FAILED:
            raise _error_of(export)
        case ExportStatus.PENDING | ExportStatus.RUNNING | ExportStatus.COMPLETED:
            return
        case _:
            assert_never(export.status)


def _error_of(export: ExportRecord) -> SiennError:
    """The error that an export failed with, as its run has noted it."""
    match export.failure_reason:
        case ExportFailure.INVALID:
            return ExportError(export.message)
        case ExportFailure.STORAGE_FULL:
            return StorageFullError(export.message)
        case ExportFailure.OUT_OF_MEMORY:
            return CapacityError(export.message, retry_after_s=_MEMORY_RETRY_S)
        case ExportFailure.INTERRUPTED | ExportFailure.INTERNAL | None:
            return SiennError(export.message)
        case _:
            assert_never(export.failure_reason)


def _links(request: Request) -> ExportLinks:
    links: ExportLinks = request.app.state.export_links
    return links


def _may_download(request: Request) -> bool:
    """Say whether a caller gets a link, which needs no key for as long as it is valid."""
    principal = principal_of(request.scope)
    return principal.is_admin or Scope.EXPORT in principal.scopes


async def _shown(export: ExportRecord, links: ExportLinks, request: Request) -> ExportModelResponse:
    options = export.options
    is_complete = export.status is ExportStatus.COMPLETED
    message = f"Model exported successfully to {options.format} format" if is_complete else export.message
    return ExportModelResponse(
        job_id=export.job_id,
        format=options.format,
        status=export.status,
        message=message,
        download_url=await links.link(export, request) if is_complete and _may_download(request) else None,
        file_size_bytes=export.size_bytes if is_complete else None,
        timestamp=utc_now(),
        export_id=export.id,
        progress=export.progress,
        file_name=export.file_name if is_complete else None,
        sha256=export.sha256 if is_complete else None,
        quantization=options.quantization,
        merged=options.merged,
        adapter_only=options.adapter_only,
        model_name=options.model_name,
        failure_reason=export.failure_reason,
        created_at=export.created_at,
        expires_at=export.expires_at,
    )
