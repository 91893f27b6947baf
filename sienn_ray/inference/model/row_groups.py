"""The requests of a step in groups that one attention call attends for, each request padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sienn_ray.inference.transfers import StepNumbers

# Padded tables of blocks that cost less to gather than another call does.
CHEAP_BLOCKS = 512


@dataclass(frozen=True)
class RowBlocks:
    """The tokens of one request in a step.

    Args:
        start: First of the tokens in the step.
        num_tokens: Number of tokens.
        blocks: The blocks of the request up to these tokens.
    """

    start: int
    num_tokens: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class RowGroup:
    """Requests that one call attends for, as places of tensors in `StepNumbers`.

    Args:
        num_rows: Number of requests.
        num_queries: Tokens of each, padded.
        num_blocks: Blocks of each, padded.
        tokens: (rows * queries,) the requests' tokens in the step; a shorter request has its last one several times.
        table: (rows * blocks,) the requests' blocks; a shorter request has the spare one behind.
        are_all: Whether these are all of the step's tokens in their order.
    """

    num_rows: int
    num_queries: int
    num_blocks: int
    tokens: int
    table: int
    are_all: bool


def groups_of(rows: Sequence[RowBlocks], spare: int, numbers: StepNumbers) -> list[RowGroup]:
    """Divide the requests of a step into those that one call attends for.

    Args:
        rows: The requests.
        spare: A block to pad with.
        numbers: Gets tokens and tables.
    """
    num_tokens = sum(row.num_tokens for row in rows)
    decoding = [row for row in rows if row.num_tokens == 1]
    prefilled = [row for row in rows if row.num_tokens > 1]
    groups = [*_divided(decoding), *_divided(prefilled)]
    return [_group(group, spare, numbers, num_tokens) for group in groups]


def _divided(rows: Sequence[RowBlocks]) -> list[Sequence[RowBlocks]]:
    """Divide requests of one kind by their lengths, where padding would cost more than further calls."""
    if not rows:
        return []
    if fit_together(rows):
        return [rows]
    classes: dict[tuple[int, int], list[RowBlocks]] = {}
    for row in rows:
        name = (len(row.blocks) - 1).bit_length(), (row.num_tokens - 1).bit_length()
        classes.setdefault(name, []).append(row)
    return list(classes.values())


def fit_together(rows: Sequence[RowBlocks]) -> bool:
    """Return whether padding the requests to the longest costs less than further calls."""
    num_blocks, num_tokens = max(len(row.blocks) for row in rows), max(row.num_tokens for row in rows)
    read = sum(len(row.blocks) * row.num_tokens for row in rows)
    return len(rows) * num_blocks * num_tokens <= max(CHEAP_BLOCKS, 2 * read)


def _group(rows: Sequence[RowBlocks], spare: int, numbers: StepNumbers, num_tokens: int) -> RowGroup:
    ordered = sorted(rows, key=lambda row: row.start)
    num_queries = max(row.num_tokens for row in ordered)
    num_blocks = max(len(row.blocks) for row in ordered)
    tokens = [row.start + min(number, row.num_tokens - 1) for row in ordered for number in range(num_queries)]
    table: list[int] = []
    for row in ordered:
        table += row.blocks
        table += [spare] * (num_blocks - len(row.blocks))
    return RowGroup(
        len(ordered), num_queries, num_blocks, numbers.add(tokens), numbers.add(table), tokens == [*range(num_tokens)]
    )
