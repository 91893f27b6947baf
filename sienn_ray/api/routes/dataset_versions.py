"""Make versions of a dataset by appending or replacing rows; list them, and tell what differs between two."""

from __future__ import annotations

import asyncio
import threading
import uuid
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request

from sienn_ray.access.principals import Scope
from sienn_ray.access.quotas import QuotaState, too_many_bytes
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.dataset_files import MULTIPART_BODY, REFUSALS, checked_record
from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.multipart import ReceivedFile
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.uploads import Uploads, UploadsDep
from sienn_ray.api.lists.rows import row_of
from sienn_ray.api.registrations import Registrations
from sienn_ray.api.schemas.common import Inline
from sienn_ray.api.schemas.datasets import (
    DatasetDifferences,
    DatasetSummary,
    DatasetVersions,
    RowChange,
    UploadDatasetResponse,
    with_reading,
)
from sienn_ray.api.schemas.ids import DatasetIdPath
from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.differences import Differences, kept_comparison
from sienn_ray.datasets.intake import TakenDataset
from sienn_ray.datasets.joining import join
from sienn_ray.datasets.schema import check_one_kind
from sienn_ray.errors import ConflictError, InvalidInputError
from sienn_ray.jobs.schema import DatasetRecord, VersionChange

router = APIRouter(prefix="/api", tags=["Datasets"])

_MORE_REFUSALS = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


def _version_query(description: str) -> object:
    return Query(ge=1, description=description, examples=[2])


@router.post(
    "/datasets/{dataset_id}/versions",
    status_code=HTTPStatus.CREATED,
    summary="Append or replace a dataset's rows by a new version",
    openapi_extra=MULTIPART_BODY,
    responses=documented(*REFUSALS, *_MORE_REFUSALS),
    dependencies=[needs(Scope.TRAIN), takes_place(Kind.UPLOAD)],
)
async def add_dataset_version(
    dataset_id: DatasetIdPath,
    request: Request,
    backends: BackendsDep,
    uploads: UploadsDep,
    change: Annotated[
        VersionChange,
        Inline(),
        Query(
            description="`append`: the new version has the rows of the newest one, and behind them those of the file. "
            "`replace`: it has the rows of the file alone.",
            examples=["append"],
        ),
    ],
    base_version: Annotated[
        int | None,
        _version_query("The version that must be the newest; else a 409. So a repeated request appends nothing twice."),
    ] = None,
) -> UploadDatasetResponse:
    """Upload a file as a new version of a dataset, named by the id of any of its versions.

    Every version has an id of its own and never changes, so that jobs keep the rows that they were started with. The
    file is checked as in an upload. A version with appended rows is kept as JSON lines of all its rows.
    """
    versions = await backends.tracker.dataset_versions(dataset_id)
    newest = versions[-1]
    if base_version is not None and newest.version != base_version:
        raise ConflictError(
            f"version {newest.version} is the newest of dataset {newest.first_version_id}, not {base_version}; look at "
            "it, and name it as base_version"
        )
    room = await backends.tracker.quota_state(newest.owner)
    file_id = str(uuid.uuid4())
    async with uploads.received(request, backends.storage, file_id, room) as received:
        record = await checked_record(received, file_id, newest.owner, backends, uploads)
        if change is VersionChange.APPEND:
            record = await _appended(newest, record, received, room, backends, uploads)
    versioned = record.model_copy(
        update={"version_of": newest.first_version_id, "change": change, "base_version": base_version}
    )
    registrations: Registrations = request.app.state.registrations
    # Shielded: a record that is being written must not lose its files because the client has gone.
    registered = await asyncio.shield(registrations.register(versioned))
    return UploadDatasetResponse(dataset_id=registered.id, **with_reading(registered, without={"id", "owner"}))


async def _appended(
    newest: DatasetRecord,
    added: DatasetRecord,
    received: ReceivedFile,
    room: QuotaState,
    backends: Backends,
    uploads: Uploads,
) -> DatasetRecord:
    """Write the rows of a version and those of a file as a dataset of its own; the file goes."""
    kind = check_one_kind({newest.id: newest.format, received.filename: added.format})
    new_id = str(uuid.uuid4())

    def check_size(num_bytes: int) -> None:
        if room.room_bytes is not None and num_bytes > room.room_bytes:
            what = f"the rows of both together have more than {room.room_bytes}"
            raise too_many_bytes(room.use.stored_bytes, room.quotas.max_stored_bytes or 0, what)

    def write(abandoned: threading.Event) -> TakenDataset:
        # Should this process end meanwhile, nobody was told of the file.
        backends.storage.write_bytes(dataset_keys.unregistered_key(added.id), b"")
        parts = (newest.id, added.id)
        return join(backends.storage, new_id, parts, kind, check_size=check_size, abandoned=abandoned)

    try:
        taken = await uploads.check(write)
    except BaseException:
        await uploads.forget(backends.storage, new_id)
        raise
    await uploads.forget(backends.storage, added.id)
    report = taken.report
    return added.model_copy(
        update={
            "id": new_id,
            "filename": _file_name(newest.filename),
            "size_bytes": taken.size_bytes,
            "sha256": taken.sha256,
            "format": report.format.value,
            "num_rows": report.num_rows,
            "columns": list(report.columns),
            "preview": report.preview,
            "appended_to": newest.id,
        }
    )


def _file_name(name: str) -> str:
    """Return the name of a file of JSON lines with more rows than one of this name."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem if stem and len(suffix) <= 8 else name}.jsonl"[-255:]


@router.get(
    "/datasets/{dataset_id}/versions",
    summary="List a dataset's versions",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
)
async def list_dataset_versions(dataset_id: DatasetIdPath, backends: BackendsDep) -> DatasetVersions:
    """All versions of the dataset that this id is a version of, the first one first."""
    versions = await backends.tracker.dataset_versions(dataset_id)
    return DatasetVersions(
        dataset_id=versions[0].first_version_id,
        versions=[DatasetSummary.model_validate(record.model_dump()) for record in versions],
        count=len(versions),
    )


@router.get(
    "/datasets/{dataset_id}/diff",
    summary="Compare two versions of a dataset",
    response_model_exclude_unset=True,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    dependencies=[needs(Scope.READ, Scope.TRAIN), takes_place(Kind.WAIT)],
)
async def compare_dataset_versions(
    dataset_id: DatasetIdPath,
    backends: BackendsDep,
    uploads: UploadsDep,
    from_version: Annotated[
        int | None, _version_query("The earlier version; by default the one before `to_version`.")
    ] = None,
    to_version: Annotated[int | None, _version_query("The later version; by default the newest.")] = None,
) -> DatasetDifferences:
    """Count the rows that were added, removed or changed between two versions, and show the first of each.

    Rows are compared by what they hold, wherever they stand. A row is changed if its prompt is the same and its answer
    another one. The result is kept, so that the next answer comes at once.
    """
    versions = await backends.tracker.dataset_versions(dataset_id)
    first, second = _pair(versions, from_version, to_version)

    def compare(abandoned: threading.Event) -> Differences:
        return kept_comparison(backends.storage, first.id, second.id, abandoned)

    found = await uploads.compare(compare)
    return DatasetDifferences(
        dataset_id=second.first_version_id,
        from_version=first.version,
        to_version=second.version,
        num_added=found.num_added,
        num_removed=found.num_removed,
        num_changed=found.num_changed,
        num_same=found.num_same,
        added=[row_of(row) for row in found.added],
        removed=[row_of(row) for row in found.removed],
        changed=[RowChange(before=row_of(pair.before), after=row_of(pair.after)) for pair in found.changed],
    )


def _pair(
    versions: list[DatasetRecord], from_version: int | None, to_version: int | None
) -> tuple[DatasetRecord, DatasetRecord]:
    """The two versions to compare.

    Raises:
        InvalidInputError: One of them isn't there.
    """
    by_number = {record.version: record for record in versions}
    second = versions[-1].version if to_version is None else to_version
    before = [number for number in by_number if number < second]
    if from_version is None and not before:
        raise InvalidInputError(
            f"version {second} has none before it to be compared with; name one as from_version, or make another one"
        )
    first = max(before) if from_version is None else from_version
    for number in (first, second):
        if number not in by_number:
            known = ", ".join(map(str, list(by_number)[-20:]))
            raise InvalidInputError(f"version {number} isn't there; this dataset has versions {known}")
    return by_number[first], by_number[second]
