"""List datasets; show, download and delete one."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.attachments import send_stored_file
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.paging import cursor_query, limit_query
from sienn_ray.api.lists.rows import row_of
from sienn_ray.api.lists.whole import listed
from sienn_ray.api.schemas.datasets import (
    DatasetDetail,
    DatasetList,
    DatasetRows,
    DatasetSummary,
    DeletedDataset,
    with_reading,
)
from sienn_ray.api.schemas.ids import DatasetIdPath
from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.row_pages import read_page
from sienn_ray.jobs.schema import DatasetRecord, Page

router = APIRouter(prefix="/api", tags=["Datasets"])

_MAX_ROWS = 100
_OF_ONE_DATASET = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file as it came.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "Content-Disposition": {
                "description": "The file's name.",
                "schema": {"type": "string"},
                "example": "attachment; filename=\"conversations.csv\"; filename*=UTF-8''conversations.csv",
            },
            "ETag": {
                "description": "The file's SHA-256 in hex.",
                "schema": {"type": "string"},
                "example": '"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
            },
        },
    }
}


@router.get(
    "/datasets",
    summary="List all uploaded datasets",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
)
async def list_datasets(
    backends: BackendsDep,
    limit: Annotated[int | None, limit_query("Datasets")] = None,
    cursor: Annotated[str | None, cursor_query("NDI=")] = None,
) -> DatasetList:
    """Datasets, the newest first: all of them, or page by page."""

    async def read(size: int, begin: str | None) -> Page[DatasetRecord]:
        return await backends.tracker.datasets(None, size, begin)

    page = await listed(read, limit, cursor)
    summaries = [DatasetSummary.model_validate(record.model_dump()) for record in page.records]
    return DatasetList(datasets=summaries, count=page.count, next_cursor=page.next_cursor)


@router.get(
    "/datasets/{dataset_id}",
    summary="Get a dataset",
    responses=_OF_ONE_DATASET,
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
)
async def get_dataset(dataset_id: DatasetIdPath, backends: BackendsDep) -> DatasetDetail:
    """A dataset with its columns and its first rows."""
    record = await backends.tracker.dataset(dataset_id)
    return DatasetDetail.model_validate(with_reading(record))


@router.delete(
    "/datasets/{dataset_id}",
    summary="Delete a dataset",
    responses={**_OF_ONE_DATASET, **documented(HTTPStatus.CONFLICT)},
    dependencies=[needs(Scope.TRAIN)],
)
async def delete_dataset(dataset_id: DatasetIdPath, backends: BackendsDep) -> DeletedDataset:
    """Delete a dataset that no job refers to, with its file and its statistics.

    It is gone at once; its files go in a moment, or as soon as storage is there again.
    """
    record = await backends.tracker.delete_dataset(dataset_id)
    return DeletedDataset(dataset_id=record.id, deleted=True)


@router.get(
    "/datasets/{dataset_id}/download",
    summary="Download a dataset's file",
    response_class=StreamingResponse,
    responses={**_FILE, **_OF_ONE_DATASET},
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
)
async def download_dataset(dataset_id: DatasetIdPath, backends: BackendsDep) -> StreamingResponse:
    """The file, byte for byte as it was uploaded."""
    record = await backends.tracker.dataset(dataset_id)
    return await asyncio.to_thread(
        send_stored_file,
        backends.storage,
        dataset_keys.file_key(record.id),
        filename=record.filename,
        size_bytes=record.size_bytes,
        sha256=record.sha256,
    )


@router.get(
    "/datasets/{dataset_id}/rows",
    summary="Page through a dataset's rows",
    response_model_exclude_unset=True,
    responses={**_OF_ONE_DATASET, **documented(HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
)
async def dataset_rows(
    dataset_id: DatasetIdPath,
    backends: BackendsDep,
    offset: Annotated[int, Query(ge=0, description="Rows to pass over.", examples=[40])] = 0,
    limit: Annotated[int, Query(ge=1, le=_MAX_ROWS, description="Rows at the most.", examples=[20])] = 20,
) -> DatasetRows:
    """Rows as training reads them, whatever their columns are called in the file."""
    record = await backends.tracker.dataset(dataset_id)
    page = await asyncio.to_thread(read_page, backends.storage, record.id, offset=offset, limit=limit)
    end = offset + len(page.rows)
    return DatasetRows(
        dataset_id=record.id,
        rows=[row_of(row) for row in page.rows],
        num_rows=page.num_rows,
        next_offset=end if page.rows and end < page.num_rows else None,
    )
