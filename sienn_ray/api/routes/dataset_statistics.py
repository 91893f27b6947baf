"""Count what is in a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.requests import HTTPConnection

from sienn_ray.access.claims import ClaimLimits
from sienn_ray.access.principals import Scope
from sienn_ray.access.quotas import statistics_bucket
from sienn_ray.api.access.claim_gate import ClaimGate
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, take_place
from sienn_ray.api.http.render_queries import RenderQueryDep
from sienn_ray.api.http.upper_bounds import refuse_beyond
from sienn_ray.api.lists.base_models import check_base_model
from sienn_ray.api.lists.shared_statistics import SharedStatistics
from sienn_ray.api.lists.template_checks import settled_options
from sienn_ray.api.schemas.ids import DatasetIdPath
from sienn_ray.api.schemas.revisions import REVISION, REVISION_WORDS, Revision
from sienn_ray.api.schemas.statistics import DatasetStatisticsResponse, Duplicates, Spread, TokenCounts
from sienn_ray.catalog import CATALOG
from sienn_ray.datasets.statistics_schema import DatasetStatistics
from sienn_ray.errors import TooManyRequestsError
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.training.config import DEFAULT_ROW_TOKENS, MIN_ROW_TOKENS, ROW_TOKENS_BOUND, RowTokens

router = APIRouter(prefix="/api", tags=["Datasets"], dependencies=[needs(Scope.READ, Scope.TRAIN)])


_RETRY_AFTER_S = 30


def _shared(connection: HTTPConnection) -> SharedStatistics:
    shared: SharedStatistics = connection.app.state.statistics
    return shared


@router.get(
    "/datasets/{dataset_id}/statistics",
    summary="Get a dataset's statistics",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def dataset_statistics(
    dataset_id: DatasetIdPath,
    backends: BackendsDep,
    connection: HTTPConnection,
    statistics: Annotated[SharedStatistics, Depends(_shared)],
    query: RenderQueryDep,
    model_name: Annotated[
        str, Query(description="Base model whose tokenizer and chat template count.", examples=[CATALOG[0].id])
    ] = CATALOG[0].id,
    revision: Annotated[Revision | None, Query(description=REVISION_WORDS, examples=[REVISION])] = None,
    max_length: Annotated[
        RowTokens,
        Query(
            ge=MIN_ROW_TOKENS,
            description="Tokens of a row in training.",
            examples=[DEFAULT_ROW_TOKENS],
        ),
    ] = DEFAULT_ROW_TOKENS,
) -> DatasetStatisticsResponse:
    """Count rows, characters, tokens, duplicates and empty fields on the cluster.

    The numbers are kept, so that the next answer comes at once. A large dataset may take longer than a request waits:
    the answer is then a 503, and a later request finds the numbers.
    """
    refuse_beyond({"max_length": max_length}, {"max_length": ROW_TOKENS_BOUND}, backends.settings, "query")
    record = await backends.tracker.dataset(dataset_id)
    commit = None if revision is None else await check_base_model(model_name, backends.settings, revision)
    options = await settled_options(query, record, model_name, commit, backends)
    request = record.statistics_request(model_name, max_length, commit, options)
    found = await statistics.kept(request)
    if found is None:
        take_place(connection, Kind.WAIT)
        await check_base_model(model_name, backends.settings)
        found = await statistics.of(request, lambda: _place(record.owner, backends, connection))
    return _response(record, found)


@asynccontextmanager
async def _place(owner: str, backends: Backends, connection: HTTPConnection) -> AsyncIterator[None]:
    """Have one of the places that an owner has for computations, while the block runs."""
    limit = (await backends.tracker.quota_state(owner)).quotas.max_statistics
    if limit is None:
        yield
        return
    gate: ClaimGate = connection.app.state.claim_gate
    held = await gate.claim(statistics_bucket(owner), ClaimLimits(max_open=limit))
    if not held.is_granted:
        raise TooManyRequestsError(
            f"statistics of {limit} of your datasets are being computed, as many as may be "
            "(SIENN_OWNER_MAX_STATISTICS, or a limit of your own); ask again when one of them is done",
            retry_after_s=_RETRY_AFTER_S,
        )
    try:
        yield
    finally:
        gate.end(held)


def _response(record: DatasetRecord, found: DatasetStatistics) -> DatasetStatisticsResponse:
    return DatasetStatisticsResponse(
        dataset_id=record.id,
        model_name=found.base_model,
        max_length=found.max_length,
        num_rows=found.num_rows,
        characters=Spread(**found.characters.model_dump()),
        tokens=TokenCounts(
            **found.tokens.model_dump(),
            prompt=Spread(**found.prompt_tokens.model_dump()),
            completion=Spread(**found.completion_tokens.model_dump()),
        ),
        num_rows_over_max_length=found.num_rows_over_max_length,
        num_tokens_over_max_length=found.num_tokens_over_max_length,
        num_rows_dropped=found.num_dropped_rows,
        duplicates=Duplicates(num_rows=found.num_duplicate_rows, lines=found.duplicate_lines),
        empty_fields=_by_name(record.columns, found.num_empty),
    )


def _by_name(columns: list[str], num_empty: list[int] | None) -> dict[str, int] | None:
    if num_empty is None:
        return None
    # Long names are cut in the record and may be equal then.
    counts: Counter[str] = Counter()
    for name, count in zip(columns, num_empty, strict=True):
        counts[name] += count
    return dict(counts)
