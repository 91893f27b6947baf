"""Show rows as the model reads them: the very tokens of training, as text with marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.rendered_schema import (
    MAX_ROWS,
    Fate,
    RenderedExample,
    RenderedPage,
    RenderedRow,
    RenderingRequest,
    Side,
)
from sienn_ray.datasets.row_pages import read_values
from sienn_ray.datasets.row_tokens import RowTokenizer, RowTokens
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.token_text import TokenText
from sienn_ray.datasets.tokenization import TokenizedRow
from sienn_ray.errors import InvalidDatasetError, InvalidInputError
from sienn_ray.storage import Storage

# An answer of megabytes helps nobody, and a row may have a hundred of them.
MAX_TEXT_CHARS = 50_000
MAX_EXAMPLES = 50
_MAX_PAGE_CHARS = 1_000_000
_SIDES: tuple[Side, Side] = ("chosen", "rejected")


def render_rows(storage: Storage, request: RenderingRequest, tokenizer: Any) -> RenderedPage:
    """Render rows `offset` to `offset + limit`, or fewer of them where they are very long, but one at least.

    Raises:
        ArtifactError: The rows are missing from storage, or altered.
        InvalidInputError: The dataset has no such row.
    """
    limit = min(request.limit, MAX_ROWS)
    rows, num_rows = read_values(storage, request.dataset_id, offset=request.offset, limit=limit)
    if request.offset >= num_rows:
        raise InvalidInputError(
            f"row {request.offset} isn't there: the dataset has {num_rows} rows, 0 to {num_rows - 1}; ask for one of "
            "these"
        )
    make = RowTokenizer(
        tokenizer,
        PromptFormat.for_rows(request.row_kind, tokenizer, request.options),
        request.max_length,
        request.long_rows,
    )
    return RenderedPage(tuple(_until_full(render_row(make, row) for row in rows)), num_rows)


def _until_full(rows: Iterable[RenderedRow]) -> Iterable[RenderedRow]:
    num_chars = 0
    for row in rows:
        yield row
        num_chars += sum(len(example.text) for example in row.examples)
        if num_chars >= _MAX_PAGE_CHARS:
            return


def render_row(make: RowTokenizer, row: Mapping[str, Any]) -> RenderedRow:
    """Render one row.

    Args:
        make: Makes its tokens.
        row: Its values by column.
    """
    try:
        tokens = make.tokens(StoredRow.of(row))
    except InvalidDatasetError as error:
        return RenderedRow(row["row"], row["line"], None, fault=error.message)
    shown = tokens.examples[:MAX_EXAMPLES]
    return RenderedRow(
        row=row["row"],
        line=row["line"],
        fate=_fate(tokens),
        num_tokens_left_out=tokens.num_over,
        num_examples=len(tokens.examples),
        examples=tuple(_rendered(make, tokens, example, place) for place, example in enumerate(shown)),
    )


def _fate(tokens: RowTokens) -> Fate:
    if tokens.is_left_out:
        return "left_out"
    if tokens.is_split:
        return "split"
    return "cut" if tokens.num_over else "whole"


def _rendered(make: RowTokenizer, tokens: RowTokens, example: TokenizedRow, place: int) -> RenderedExample:
    text = TokenText.of(make.tokenizer, example, make.prompt_format.kind)
    return RenderedExample(
        side=_SIDES[place] if tokens.is_pair else None,
        text=text.text[:MAX_TEXT_CHARS],
        num_chars=len(text.text),
        num_tokens=len(example.input_ids),
        num_learned_tokens=example.num_completion_tokens,
        is_left_out=not tokens.is_kept(example),
        spans=text.learned_spans(MAX_TEXT_CHARS),
        special_tokens=text.special_tokens(MAX_TEXT_CHARS),
        cut=text.cut,
    )
