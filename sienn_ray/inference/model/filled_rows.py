"""Decoding steps filled up to few sizes, so that captured graphs can be replayed for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sienn_ray.inference.model.adapter_places import power_of_two
from sienn_ray.inference.model.row_groups import CHEAP_BLOCKS
from sienn_ray.inference.model.step_rows import StepRow

# Blocks of the longest request over those of a class of short ones.
_SHORT = (4, 16)


@dataclass(frozen=True)
class FilledClass:
    """Rows that one attention call attends for.

    Args:
        num_blocks: Blocks of each row.
        tokens: (rows,) the rows' tokens in the step; some are there several times.
        table: (rows * blocks,)
    """

    num_blocks: int
    tokens: Sequence[int]
    table: Sequence[int]


@dataclass(frozen=True)
class FilledRows:
    """A decoding step that is filled up with rows of the spare block.

    Args:
        ids: (rows,) tokens.
        positions: (rows,)
        slots: (rows,)
        classes: All rows, as short as the short ones; then the long ones again, whose result counts.
    """

    ids: Sequence[int]
    positions: Sequence[int]
    slots: Sequence[int]
    classes: Sequence[FilledClass]

    @property
    def shape(self) -> tuple[tuple[int, int], ...]:
        """Rows and blocks of each class."""
        return tuple((len(each.tokens), each.num_blocks) for each in self.classes)


def fill_up(rows: Sequence[StepRow], spare: int, block_tokens: int) -> FilledRows | None:
    """Fill a decoding step up to powers of two, or return None where that reads far more than it has to.

    Args:
        rows: The requests.
        spare: A block to pad with.
        block_tokens: Tokens in a block.
    """
    tables = [row.blocks[: -(-len(row.tokens) // block_tokens)] for row in rows]
    more = power_of_two(len(rows)) - len(rows)
    classes = _classes([*tables, *[()] * more], spare)
    if classes is None:
        return None
    positions = [len(row.tokens) - 1 for row in rows]
    slots = [own[-1] * block_tokens + place % block_tokens for own, place in zip(tables, positions, strict=True)]
    return FilledRows(
        [row.tokens[-1] for row in rows] + [0] * more,
        positions + [0] * more,
        slots + [spare * block_tokens] * more,
        classes,
    )


def _classes(tables: Sequence[Sequence[int]], spare: int) -> list[FilledClass] | None:
    """Divide rows into one class or two, the first way that doesn't read far more than it has to."""
    most = max(CHEAP_BLOCKS, 4 * sum(map(len, tables)))
    num_blocks = power_of_two(max(map(len, tables)))
    if len(tables) * num_blocks <= most:
        return [_class(tables, range(len(tables)), num_blocks, spare)]
    for share in _SHORT:
        short = max(1, num_blocks // share)
        long = [token for token, own in enumerate(tables) if len(own) > short]
        long += [long[-1]] * (power_of_two(len(long)) - len(long))
        if len(tables) * short + len(long) * num_blocks <= most:
            return [_class(tables, range(len(tables)), short, spare), _class(tables, long, num_blocks, spare)]
    return None


def _class(tables: Sequence[Sequence[int]], tokens: Sequence[int], num_blocks: int, spare: int) -> FilledClass:
    table: list[int] = []
    for token in tokens:
        own = tables[token][:num_blocks]
        table += own
        table += [spare] * (num_blocks - len(own))
    return FilledClass(num_blocks, tokens, table)
