"""Start fine-tunes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from sienn_ray.access.principals import Principal, Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.upper_bounds import refuse_beyond
from sienn_ray.api.lists.base_models import check_base_model
from sienn_ray.api.lists.job_datasets import check_datasets
from sienn_ray.api.lists.template_checks import check_templates
from sienn_ray.api.schemas.finetuning import StartFinetuningRequest, StartFinetuningResponse
from sienn_ray.datasets.schema import RowKind, row_kind
from sienn_ray.datasets.statistics_schema import DatasetStatistics
from sienn_ray.errors import ConflictError, InvalidDatasetError
from sienn_ray.inference.adapter_kinds import kind_for_adapter
from sienn_ray.jobs.ids import shown
from sienn_ray.jobs.schema import JobPriority, JobRecord, utc_now
from sienn_ray.jobs.starts import check_adapter, check_completed, check_revision, continued, settled_parent
from sienn_ray.template_check.verdict import TemplateRequest
from sienn_ray.training.advice import warnings_of
from sienn_ray.training.long_rows import found_words, refusal
from sienn_ray.training.methods import method_of
from sienn_ray.training.upper_bounds import upper_bounds_of

router = APIRouter(prefix="/api", tags=["Training Jobs"], dependencies=[needs(Scope.TRAIN)])

REPLAYED_HEADER = "Idempotent-Replayed"
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The job was taken, now or by the same request before.",
        "headers": {
            REPLAYED_HEADER: {
                "description": "There, and `true`, if the same request with the same `Idempotency-Key` came before.",
                "schema": {"type": "string", "enum": ["true"]},
                "example": "true",
            }
        },
    }
}

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Any text of the client's, such as a UUID: a request that is repeated with the same key makes no "
        "second job, it is answered with the first one. The same key with another body is a 409.",
        examples=["5f2c1c5e-7d0b-4c3a-9a57-0d4a3c0f9b1e"],
    ),
]


@router.post(
    "/start-finetuning",
    status_code=HTTPStatus.CREATED,
    summary="Start a fine-tuning job",
    responses={
        **_CREATED,
        **documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
)
async def start_finetuning(
    body: StartFinetuningRequest,
    backends: BackendsDep,
    principal: PrincipalDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> StartFinetuningResponse:
    """Queue a LoRA fine-tune; it starts once fewer than SIENN_MAX_RUNNING_JOBS run and its owner's turn comes."""
    refuse_beyond(body.model_dump(), upper_bounds_of(StartFinetuningRequest), backends.settings, "body")
    record = _record(body, idempotency_key, principal)
    max_row_tokens = backends.settings.max_row_tokens
    num_long: int | None = None
    num_rows = 0
    of_rows: list[str] = []
    advice: tuple[str, ...] = ()
    job = await _earlier_job(record, backends)
    if job is None:
        datasets = await check_datasets(body, backends.tracker)
        record = await _checked(record, body, datasets.row_kind, backends)
        checked = await check_templates(await _template_requests(record, backends), backends)
        told: list[str] = []
        if checked.special_tokens is not None and datasets.row_kind is RowKind.TEXT:
            record = record.model_copy(update={"config": record.config.settled(checked.special_tokens)})
            told = checked.warnings  # what isn't settled, the run looks at again, and tells
        of_rows = [*datasets.warnings, *checked.warnings]
        num_long, num_rows = await _long_rows(record, backends)
        if num_long and record.config.long_rows == "fail":
            raise InvalidDatasetError(refusal(record.config, max_row_tokens, num_long, num_rows))
        if num_long:
            of_rows.append(found_words(record.config, max_row_tokens, num_long=num_long, num_rows=num_rows))
        advice = warnings_of(record.config, datasets.row_kind, datasets.num_rows, body.model_fields_set)
        record = record.model_copy(update={"warnings": (*told, *advice)})
        # The same request may have come a second time meanwhile; the tracker then gives the job that was first.
        job = await backends.tracker.add_job(record)
    if job.id != record.id:
        response.headers[REPLAYED_HEADER] = "true"
    return StartFinetuningResponse(
        job_id=job.id,
        status=job.status.value,
        dataset_id=job.dataset_id,
        message="Fine-tuning job submitted successfully",
        created_at=job.created_at,
        num_long_rows=num_long,
        warning="; ".join(of_rows) or None,
        warnings=[*of_rows, *advice],
    )


def _record(body: StartFinetuningRequest, idempotency_key: str | None, principal: Principal) -> JobRecord:
    now = utc_now()
    return JobRecord(
        id=str(uuid.uuid4()),
        owner=principal.owner,
        key_id=principal.key_id,
        dataset_id=body.trained_on[0].dataset_id,
        datasets=body.trained_on,
        validation_dataset_id=body.validation_dataset_id,
        from_job=body.from_job,
        name=body.name,
        labels=body.labels,
        priority=JobPriority[body.priority.upper()],
        idempotency_key=idempotency_key,
        request_hash=_hash(body) if idempotency_key is not None else None,
        config=body.config(),
        created_at=now,
        updated_at=now,
    )


async def _template_requests(job: JobRecord, backends: Backends) -> list[TemplateRequest]:
    """The checks of the job's datasets against the chat template of its base model."""
    return [(await backends.tracker.dataset(id_)).template_request(job.config) for id_ in job.dataset_ids]


async def _long_rows(job: JobRecord, backends: Backends) -> tuple[int | None, int]:
    """Rows with more than `max_length` tokens as far as they were counted before, and rows in all."""
    num_long: int | None = None
    num_rows = 0
    config = job.config
    for each in job.trained_on:
        dataset = await backends.tracker.dataset(each.dataset_id)
        if config.is_auto and row_kind(dataset.format) is RowKind.TEXT:  # the job finds out how its tokens are read
            return None, 0
        request = dataset.statistics_request(config.base_model, config.max_length, options=config.render_options)
        try:
            found = await asyncio.to_thread(DatasetStatistics.kept, backends.storage, request)
        except OSError:  # a job can wait for storage that is away, and counts itself
            found = None
        if found is None:
            return None, 0
        num_rows += found.num_rows
        num_long = (num_long or 0) + found.num_rows_over_max_length
    return num_long, num_rows


def _hash(body: StartFinetuningRequest) -> str:
    """SHA-256 of what was asked for. Defaults are left out, so that fields which are added later change no hash.

    With `from_job`, what is left out is that job's, and the same as a default where it is there isn't the same request.
    """
    is_continued = body.from_job is not None
    asked = body.model_dump(mode="json", exclude_unset=is_continued, exclude_defaults=not is_continued)
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def _earlier_job(record: JobRecord, backends: Backends) -> JobRecord | None:
    """The job that this very request has made before, if any."""
    if record.idempotency_key is None:
        return None
    job = await backends.tracker.job_of_key(record.idempotency_key, record.owner)
    if job is not None and job.request_hash != record.request_hash:
        raise ConflictError(
            f"the Idempotency-Key '{shown(record.idempotency_key)}' came with another request before, which made job "
            f"{job.id}; take a new key for a new job"
        )
    return job


async def _checked(record: JobRecord, body: StartFinetuningRequest, row_kind: RowKind, backends: Backends) -> JobRecord:
    """The job with what it takes over from another one, its base model found and pinned.

    Raises:
        SiennError: It can't be trained, or what it trains couldn't be served.
    """
    method_of(row_kind, record.config.method)
    config, parent, revision = record.config, None, body.revision
    if body.from_job is not None:
        parent = await backends.tracker.job(body.from_job)
        check_completed(parent)
        names = {"model_name": "base_model"}
        parent = await asyncio.to_thread(settled_parent, backends.storage, parent)
        config = continued(config, {names.get(name, name) for name in body.model_fields_set}, parent)
        revision = revision or parent.config.base_model_revision
        with contextlib.suppress(OSError):  # storage is away: the job looks as well
            await asyncio.to_thread(check_adapter, backends.storage, parent, row_kind)
    kind_for_adapter(config.lora.serving_fields, backends.settings)
    targets = config.lora.named_modules
    commit = await check_base_model(config.base_model, backends.settings, revision, targets, config.max_length)
    if parent is not None:
        check_revision(commit, parent)
    return record.model_copy(update={"config": config.pinned(commit)})
