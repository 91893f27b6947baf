"""Show rows as the model reads them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.requests import HTTPConnection

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, take_place
from sienn_ray.api.http.render_queries import RenderQueryDep
from sienn_ray.api.http.upper_bounds import refuse_beyond
from sienn_ray.api.lists.base_models import check_base_model
from sienn_ray.api.lists.bounded_renderings import BoundedRenderings
from sienn_ray.api.lists.template_checks import settled_options
from sienn_ray.api.schemas.ids import DatasetIdPath
from sienn_ray.api.schemas.rendered_rows import (
    CutBody,
    LearnedSpanBody,
    RenderedExampleBody,
    RenderedRowBody,
    RenderedRows,
    SpecialTokenBody,
)
from sienn_ray.api.schemas.revisions import REVISION, REVISION_WORDS, Revision
from sienn_ray.catalog import CATALOG
from sienn_ray.datasets.rendered_schema import MAX_ROWS, RenderedExample, RenderedRow, RenderingRequest
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.schema import row_kind
from sienn_ray.errors import InvalidDatasetError, InvalidInputError
from sienn_ray.training.config import DEFAULT_ROW_TOKENS, MIN_ROW_TOKENS, ROW_TOKENS_BOUND, RowTokens
from sienn_ray.training.long_rows import check_kind

router = APIRouter(prefix="/api", tags=["Datasets"], dependencies=[needs(Scope.READ, Scope.TRAIN)])

# Of a JSON integer that every client can read.
_MAX_ROW = 2**53 - 1


def _bounded(connection: HTTPConnection) -> BoundedRenderings:
    bounded: BoundedRenderings = connection.app.state.renderings
    return bounded


@router.get(
    "/datasets/{dataset_id}/rendered",
    summary="Show rows as the model reads them",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def rendered_rows(
    dataset_id: DatasetIdPath,
    backends: BackendsDep,
    connection: HTTPConnection,
    renderings: Annotated[BoundedRenderings, Depends(_bounded)],
    query: RenderQueryDep,
    model_name: Annotated[
        str, Query(description="Base model whose tokenizer and chat template render.", examples=[CATALOG[0].id])
    ] = CATALOG[0].id,
    revision: Annotated[Revision | None, Query(description=REVISION_WORDS, examples=[REVISION])] = None,
    max_length: Annotated[
        RowTokens,
        Query(ge=MIN_ROW_TOKENS, description="Tokens of an example in training.", examples=[DEFAULT_ROW_TOKENS]),
    ] = DEFAULT_ROW_TOKENS,
    long_rows: Annotated[
        LongRows, Query(description="What becomes of rows with more, as in training.", examples=["cut"])
    ] = "cut",
    row: Annotated[
        int | None,
        Query(
            ge=0,
            le=_MAX_ROW,
            description="The one row to show, 0-based; instead of `offset` and `limit`.",
            examples=[0],
        ),
    ] = None,
    offset: Annotated[int, Query(ge=0, le=_MAX_ROW, description="Rows to pass over.", examples=[0])] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows at the most.", examples=[1])] = 1,
) -> RenderedRows:
    """Rows as text with marks: what is learned, what is cut off, and what is a special token.

    It is the text that training reads, made by the same code: the chat template around each message, one example for
    each answer where the template asks for that, and the end of `max_length`. Offsets count Unicode code points.
    """
    if row is not None and (offset, limit) != (0, 1):
        raise InvalidInputError(
            f"row={row} names one row, and offset={offset} and limit={limit} name others; leave out either"
        )
    refuse_beyond({"max_length": max_length}, {"max_length": ROW_TOKENS_BOUND}, backends.settings, "query")
    record = await backends.tracker.dataset(dataset_id)
    kind = row_kind(record.format)
    check_kind(long_rows, kind)
    take_place(connection, Kind.WAIT)
    commit = await check_base_model(model_name, backends.settings, revision)
    options = await settled_options(query, record, model_name, commit, backends)
    first = offset if row is None else row
    page = await renderings.render(
        RenderingRequest(record.id, model_name, kind, max_length, long_rows, first, limit, commit, options)
    )
    if row is not None and page.rows[0].fault is not None:
        raise InvalidDatasetError(f"row {row} (line {page.rows[0].line}): {page.rows[0].fault}")
    end = first + len(page.rows)
    return RenderedRows(
        dataset_id=record.id,
        model_name=model_name,
        revision=commit,
        max_length=max_length,
        long_rows=long_rows,
        rows=[_row(each) for each in page.rows],
        num_rows=page.num_rows,
        next_offset=end if row is None and end < page.num_rows else None,
    )


def _row(row: RenderedRow) -> RenderedRowBody:
    return RenderedRowBody(
        row=row.row,
        line=row.line,
        fate=row.fate,
        num_tokens_left_out=row.num_tokens_left_out,
        num_examples=row.num_examples,
        examples=[_example(example) for example in row.examples],
        fault=row.fault,
    )


def _example(example: RenderedExample) -> RenderedExampleBody:
    cut = example.cut
    return RenderedExampleBody(
        side=example.side,
        text=example.text,
        truncated=example.is_truncated,
        num_chars=example.num_chars,
        num_tokens=example.num_tokens,
        num_learned_tokens=example.num_learned_tokens,
        left_out=example.is_left_out,
        learned=[LearnedSpanBody(start=span.start, end=span.end, num_tokens=span.num_tokens) for span in example.spans],
        special_tokens=[
            SpecialTokenBody(start=mark.start, end=mark.end, token=mark.token, is_control=mark.is_control)
            for mark in example.special_tokens
        ],
        cut=None if cut is None else CutBody(position=cut.position, num_tokens=cut.num_tokens),
    )
