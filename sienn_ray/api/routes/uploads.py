"""Upload dataset files, or only validate them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import asdict
from http import HTTPStatus

from fastapi import APIRouter, Request

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.dataset_files import MULTIPART_BODY, REFUSALS, checked_record
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.uploads import UploadsDep
from sienn_ray.api.registrations import Registrations
from sienn_ray.api.schemas.datasets import RowError, UploadDatasetResponse, ValidationReport, with_reading
from sienn_ray.datasets import intake
from sienn_ray.datasets.ingest import Inspection
from sienn_ray.datasets.reading_options import options_of

router = APIRouter(prefix="/api", tags=["Datasets"], dependencies=[needs(Scope.TRAIN)])


@router.post(
    "/upload-dataset",
    status_code=HTTPStatus.CREATED,
    summary="Upload a dataset file",
    openapi_extra=MULTIPART_BODY,
    responses=documented(*REFUSALS, HTTPStatus.FORBIDDEN),
    dependencies=[takes_place(Kind.UPLOAD)],
)
async def upload_dataset(
    request: Request, backends: BackendsDep, principal: PrincipalDep, uploads: UploadsDep
) -> UploadDatasetResponse:
    """Upload a CSV, JSON, JSONL, Parquet or text file, packed or not, with one of these column sets.

    `instruction,response` · `instruction,input,output` · `instruction,input,response` · `prompt,completion` ·
    `question,answer` · `prompt,chosen,rejected` · `prompt,completion,label` · `messages` · `text`. Other names that
    people have for these columns are read as well, and `columns` maps any. Columns that nothing reads are named in the
    answer, and refused where they would change what is learned. Every row is checked; the first errors are reported
    with their lines, and a file with any error is not kept. A `.txt` file that holds none of these is plain
    text: a row of `text` for each paragraph where a blank line ends the first one, else for each line.
    """
    dataset_id = str(uuid.uuid4())
    registrations: Registrations = request.app.state.registrations
    room = await backends.tracker.quota_state(principal.owner)
    async with uploads.received(request, backends.storage, dataset_id, room) as received:
        record = await checked_record(received, dataset_id, principal.owner, backends, uploads)
    # Shielded: a record that is being written must not lose its files because the client has gone.
    record = await asyncio.shield(registrations.register(record))
    return UploadDatasetResponse(dataset_id=record.id, **with_reading(record, without={"id", "owner"}))


@router.post(
    "/validate-dataset",
    summary="Check a dataset file without keeping it",
    openapi_extra=MULTIPART_BODY,
    responses=documented(*REFUSALS),
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
