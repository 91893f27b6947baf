"""Upload datasets and list them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.errors import documented
from sienn_ray.api.multipart import ReceivedFile, receive_file, too_large
from sienn_ray.api.schemas import DatasetList, DatasetSummary, UploadDatasetResponse
from sienn_ray.datasets import intake
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.schema import DatasetRecord

router = APIRouter(prefix="/api", tags=["Datasets"])

T = TypeVar("T")
# Boundaries and headers of a multipart body, beside the file in it.
_ENVELOPE_BYTES = 64 * 1024
_MULTIPART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "CSV, JSON or JSONL."}
                    },
                }
            }
        },
    }
}


@router.post(
    "/upload-dataset",
    status_code=HTTPStatus.CREATED,
    summary="Upload a dataset file",
    openapi_extra=_MULTIPART_BODY,
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
)
async def upload_dataset(request: Request, backends: BackendsDep) -> UploadDatasetResponse:
    """Take a CSV, JSON (array of objects) or JSONL file, UTF-8, with one of these column sets.

    `instruction,response` · `instruction,input,output` · `instruction,input,response` · `prompt,completion` ·
    `question,answer` · `messages` · `text`. Every row is checked; the first fault is reported with its line.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > backends.settings.max_upload_bytes + _ENVELOPE_BYTES:
        raise too_large(backends.settings.max_upload_bytes)
    dataset_id = str(uuid.uuid4())
    try:
        received = await _store_file(request, backends, dataset_id)
        record = await _check(backends, dataset_id, received)
    except ClientDisconnect as error:
        await _forget(backends, dataset_id)
        raise InvalidInputError("the connection closed before the file was whole; send it again") from error
    except BaseException:
        await _forget(backends, dataset_id)
        raise
    # Shielded: a record that is being written must not lose its files because the client has gone.
    record = await asyncio.shield(_register(backends, record))
    return UploadDatasetResponse(dataset_id=record.id, **record.model_dump(exclude={"id"}))


async def _store_file(request: Request, backends: Backends, dataset_id: str) -> ReceivedFile:
    async with _in_thread(backends.storage.writing(intake.file_key(dataset_id))) as sink:
        return await receive_file(
            request.stream(),
            request.headers.get("content-type", ""),
            sink,
            max_bytes=backends.settings.max_upload_bytes,
        )


async def _check(backends: Backends, dataset_id: str, received: ReceivedFile) -> DatasetRecord:
    report = await asyncio.to_thread(
        intake.check_rows,
        backends.storage,
        dataset_id,
        received.filename,
        max_row_bytes=backends.settings.max_row_bytes,
    )
    return DatasetRecord.of_report(dataset_id, received.filename, received.size_bytes, received.sha256, report)


async def _register(backends: Backends, record: DatasetRecord) -> DatasetRecord:
    try:
        return await backends.tracker.add_dataset(record)
    except Exception:
        await _forget(backends, record.id)
        raise


async def _forget(backends: Backends, dataset_id: str) -> None:
    """Leave nothing behind; shielded, since the request itself may be cancelled."""
    await asyncio.shield(asyncio.to_thread(backends.storage.delete, intake.folder_key(dataset_id)))


@asynccontextmanager
async def _in_thread(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager without holding up other requests."""
    value = await asyncio.to_thread(context.__enter__)
    try:
        yield value
    except BaseException as error:
        await asyncio.shield(asyncio.to_thread(context.__exit__, type(error), error, error.__traceback__))
        raise
    await asyncio.to_thread(context.__exit__, None, None, None)


@router.get("/datasets", summary="List all uploaded datasets")
async def list_datasets(backends: BackendsDep) -> DatasetList:
    """All datasets, the newest first."""
    records = await backends.tracker.datasets()
    return DatasetList(datasets=[DatasetSummary.model_validate(record.model_dump()) for record in records])
