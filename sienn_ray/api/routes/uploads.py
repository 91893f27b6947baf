"""Upload dataset files, or only validate them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.uploads import UploadsDep
from sienn_ray.api.registrations import Registrations
from sienn_ray.api.schemas.datasets import RowError, UploadDatasetResponse, ValidationReport, with_reading
from sienn_ray.datasets import intake
from sienn_ray.datasets.ingest import IngestReport, Inspection
from sienn_ray.datasets.reading_options import options_of
from sienn_ray.jobs.schema import DatasetRecord

router = APIRouter(prefix="/api", tags=["Datasets"], dependencies=[needs(Scope.TRAIN)])

_FILE: dict[str, Any] = {
    "type": "string",
    "format": "binary",
    "description": "A file whose name ends with `.csv`, `.json` (an array of objects), `.jsonl` or `.txt`, in UTF-8.",
    "examples": ["instruction,response\nWhat is Python?,A programming language.\n"],
}
_ENCODING: dict[str, Any] = {
    "type": "string",
    "description": "The file's encoding where it isn't UTF-8, such as `windows-1252`, `iso-8859-1` or `utf-16`.",
    "examples": ["windows-1252"],
}
_SEPARATOR: dict[str, Any] = {
    "type": "string",
    "description": "The separator of a CSV file's columns: `,`, `;`, `|` or a tab, or its name (`comma`, `semicolon`, "
    "`pipe`, `tab`). Told from the first line where it isn't given.",
    "examples": [";"],
}
_COLUMNS: dict[str, Any] = {
    "type": "string",
    "description": "Columns of the file by the names that they stand for: a JSON object, or `name=name` pairs with "
    "commas between.",
    "examples": ['{"Frage": "question", "Antwort": "answer"}', "Frage=question,Antwort=answer"],
}
_FIELDS: dict[str, Any] = {"file": _FILE, "encoding": _ENCODING, "separator": _SEPARATOR, "columns": _COLUMNS}
_MULTIPART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A form with one file, as `curl -F file=@dataset.csv` sends it, and, where it is needed, "
        "with how to read the file, in any order.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": _FIELDS},
            }
        },
    }
}
_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


@router.post(
    "/upload-dataset",
    status_code=HTTPStatus.CREATED,
    summary="Upload a dataset file",
    openapi_extra=_MULTIPART_BODY,
    responses=documented(*_REFUSALS, HTTPStatus.FORBIDDEN),
    dependencies=[takes_place(Kind.UPLOAD)],
)
async def upload_dataset(
    request: Request, backends: BackendsDep, principal: PrincipalDep, uploads: UploadsDep
) -> UploadDatasetResponse:
    """Upload a CSV, JSON (array of objects) or JSONL file, UTF-8, with one of these column sets.

    `instruction,response` · `instruction,input,output` · `instruction,input,response` · `prompt,completion` ·
    `question,answer` · `prompt,chosen,rejected` · `messages` · `text`. Every row is checked; the first errors are
    reported with their lines, and a file with any error is not kept. A `.txt` file that holds none of these is plain
    text: a row of `text` for each paragraph where a blank line ends the first one, else for each line.
    """
    dataset_id = str(uuid.uuid4())
    registrations: Registrations = request.app.state.registrations
    room = await backends.tracker.quota_state(principal.owner)
    async with uploads.received(request, backends.storage, dataset_id, room) as received:
        filename = received.filename
        options = options_of(received.fields)

        def check(abandoned: threading.Event) -> IngestReport:
            return intake.check_rows(
                backends.storage,
                dataset_id,
                filename,
                max_row_bytes=backends.settings.max_row_bytes,
                options=options,
                abandoned=abandoned,
            )

        report = await uploads.check(check)
    record = DatasetRecord.of_report(
        dataset_id,
        filename,
        received.size_bytes,
        received.sha256,
        report,
        principal.owner,
        options=options,
        remarks=received.remarks,
    )
    # Shielded: a record that is being written must not lose its files because the client has gone.
    record = await asyncio.shield(registrations.register(record))
    return UploadDatasetResponse(dataset_id=record.id, **with_reading(record, without={"id", "owner"}))


@router.post(
    "/validate-dataset",
    summary="Check a dataset file without keeping it",
    openapi_extra=_MULTIPART_BODY,
    responses=documented(*_REFUSALS),
    dependencies=[takes_place(Kind.UPLOAD)],
)
async def validate_dataset(request: Request, backends: BackendsDep, uploads: UploadsDep) -> ValidationReport:
    """Check a file as an upload would, and list the first bad rows by their lines. Nothing is kept."""
    dataset_id = str(uuid.uuid4())
    async with uploads.received(request, backends.storage, dataset_id) as received:
        filename = received.filename
        options = options_of(received.fields)

        def check(abandoned: threading.Event) -> Inspection:
            return intake.inspect_file(
                backends.storage,
                dataset_id,
                filename,
                max_row_bytes=backends.settings.max_row_bytes,
                options=options,
                abandoned=abandoned,
            )

        inspection = await uploads.check(check)
        await uploads.forget(backends.storage, dataset_id)
    return ValidationReport(
        valid=not inspection.faults,
        filename=filename,
        size_bytes=received.size_bytes,
        format=inspection.format,
        columns=list(inspection.columns),
        num_rows=inspection.num_rows,
        num_bad_rows=inspection.num_bad_rows,
        errors=[RowError(**asdict(fault)) for fault in inspection.faults],
        complete=inspection.is_complete,
        preview=inspection.preview,
        guessed=inspection.guessed,
        ignored_columns=list(inspection.ignored_columns),
        notes=[*received.remarks, *inspection.notes],
    )
