"""Import datasets from the Hugging Face hub."""

from __future__ import annotations

import asyncio
import threading
import uuid
from http import HTTPStatus

from fastapi import APIRouter, Request

from sienn_ray.access.principals import Scope
from sienn_ray.access.quotas import QuotaState
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.uploads import Uploads, UploadsDep
from sienn_ray.api.registrations import Registrations
from sienn_ray.api.schemas.dataset_imports import ImportDatasetRequest
from sienn_ray.api.schemas.datasets import UploadDatasetResponse, with_reading
from sienn_ray.datasets.hub_import import HubDataset, ImportRules, look_up, take
from sienn_ray.datasets.hub_source import HubSource
from sienn_ray.datasets.intake import TakenDataset
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.settings import Settings

router = APIRouter(prefix="/api", tags=["Datasets"], dependencies=[needs(Scope.TRAIN)])


@router.post(
    "/import-dataset",
    status_code=HTTPStatus.CREATED,
    summary="Import a dataset from the Hugging Face hub",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    dependencies=[takes_place(Kind.UPLOAD)],
)
async def import_dataset(
    body: ImportDatasetRequest, request: Request, backends: BackendsDep, principal: PrincipalDep, uploads: UploadsDep
) -> UploadDatasetResponse:
    """Take the rows of a dataset on the hub, checked as in an upload, and keep the commit that they came from.

    Only files of rows are read; code in the repository is never run. One such file is kept as it came, several are kept
    as JSON lines of all their rows. All of them together may be as large as an upload.
    """
    source = HubSource.parsed(body.source)
    dataset_id = str(uuid.uuid4())
    rules = _rules(body, backends.settings, uploads, await backends.tracker.quota_state(principal.owner))

    def run(abandoned: threading.Event) -> tuple[HubDataset, str, TakenDataset]:
        found = look_up(source, rules)
        return found, *take(backends.storage, dataset_id, found, rules, abandoned)

    async with uploads.place():
        found, filename, taken = await uploads.take_elsewhere(run)
    record = DatasetRecord.of_report(
        dataset_id, filename, taken.size_bytes, taken.sha256, taken.report, principal.owner, options=rules.options
    ).model_copy(update={"source": str(source), "source_revision": found.commit})
    registrations: Registrations = request.app.state.registrations
    # Shielded: a record that is being written must not lose its files because the client has gone.
    record = await asyncio.shield(registrations.register(record))
    return UploadDatasetResponse(dataset_id=record.id, **with_reading(record, without={"id", "owner"}))


def _rules(body: ImportDatasetRequest, settings: Settings, uploads: Uploads, quotas: QuotaState) -> ImportRules:
    limit = uploads.limit(quotas)

    def check_size(num_bytes: int) -> None:
        if num_bytes > limit.max_bytes:
            raise limit.error()

    return ImportRules(
        options=body.options(),
        max_row_bytes=settings.max_row_bytes,
        check_size=check_size,
        timeout_s=settings.hub_timeout_s,
        uses_token=settings.hub_datasets_use_token,
    )
