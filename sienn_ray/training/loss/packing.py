"""From tokenized rows to batches without padding, or with as little as can be where a base model needs it.

A packed batch is one sequence of pieces. What rows begin with in common is one piece for all of them, computed once,
and so on behind it: the answers of a conversation, each with all that went before it, make a tree.

    [what rows 1, 2 and 3 begin with | rest of row 1 | what 2 and 3 go on with | rest of 2 | rest of 3 | row 4]

Position ids go on along each row, and `packed_attention` lets a row see its own pieces only. Gradients of a piece are
the sums over its rows, so all is as if each row were alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.loss.batches import Batch
from sienn_ray.training.loss.row_tree import Piece, RowTree, Tokens

# `input_ids` and `labels` of a row.
TokenRow = tuple[Sequence[int], Sequence[int]]

# Fewer tokens in common are computed for each row: putting pieces together takes time as well.
MIN_SHARED_TOKENS = 16

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pieces:
    """The division of a packed sequence into rows.

    Args:
        sizes: Tokens of each piece, in the order of the sequence.
        chains: The pieces of each row, by their numbers; a row that others begin with isn't among them. New pieces of a
            chain are its last ones, and come in their order.
    """

    sizes: tuple[int, ...]
    chains: tuple[tuple[int, ...], ...]


def as_pieces(pieces: Pieces, device: torch.device) -> dict[str, Any]:  # noqa: ARG001
    """Make the arguments of `packed_attention`."""
    return {"pieces": pieces}


def pack(
    rows: Sequence[TokenRow],
    min_shared: int = MIN_SHARED_TOKENS,
    attention_inputs: Callable[[Pieces, torch.device], dict[str, Any]] = as_pieces,
) -> Batch:
    """Put rows into one sequence, on the CPU.

    Args:
        rows: At least one.
        min_shared: Tokens in common, at least 1, that rows share.
        attention_inputs: Makes the arguments that the attention tells rows by.

    Example:
        >>> rows = [([1, 2, 3], [-100, 2, 3]), ([1, 2, 9], [-100, 2, 9])]
        >>> batch = pack(rows, min_shared=2)
        >>> batch.inputs["input_ids"].tolist(), batch.targets.tolist()
        ([[1, 2, 3, 9]], [2, 3, 2, 9])
    """
    tree = RowTree(min_shared)
    ends = [tree.insert(_array(ids)) for ids, _ in rows]
    pieces = tree.in_order()
    sources = [_places(end, _sources(labels)) for end, (_, labels) in zip(ends, rows, strict=True)]
    chains = tuple(tuple(each.number for each in piece.chain()) for piece in pieces if not piece.followers)
    positions = [np.arange(piece.depth, piece.depth + len(piece.tokens)) for piece in pieces]
    inputs = {
        "input_ids": torch.from_numpy(np.concatenate([piece.tokens for piece in pieces])[None]),
        "position_ids": torch.from_numpy(np.concatenate(positions)[None]),
        **attention_inputs(Pieces(tuple(len(piece.tokens) for piece in pieces), chains), _CPU),
    }
    return _batch(inputs, sources, rows)


def pad(rows: Sequence[TokenRow], pad_token_id: int) -> Batch:
    """Rows side by side on the CPU, filled up on the right to the longest; only positions say what is padding."""
    width = max(len(input_ids) for input_ids, _ in rows)
    input_ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, (ids, _) in enumerate(rows):
        input_ids[number, : len(ids)] = ids
        attention_mask[number, : len(ids)] = 1
    sources = [number * width + _sources(labels) for number, (_, labels) in enumerate(rows)]
    inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
    return _batch(inputs, sources, rows)


class BatchSize(Protocol):
    """A count of the tokens that the base model computes for a batch, while rows are added to it."""

    def add(self, rows: Sequence[TokenRow]) -> int:
        """Count some more rows; gives the tokens of all."""
        ...


class PackedSize:
    """Tokens of a packed batch: those that rows share count once."""

    def __init__(self) -> None:
        self._tree = RowTree(MIN_SHARED_TOKENS)

    def add(self, rows: Sequence[TokenRow]) -> int:
        """See `BatchSize.add`."""
        for ids, _ in rows:
            self._tree.insert(_array(ids))
        return self._tree.num_tokens


class PaddedSize:
    """Tokens of a padded batch: each row counts as much as the longest."""

    def __init__(self) -> None:
        self._num_rows = self._width = 0

    def add(self, rows: Sequence[TokenRow]) -> int:
        """See `BatchSize.add`."""
        self._num_rows += len(rows)
        self._width = max(self._width, *(len(ids) for ids, _ in rows))
        return self._num_rows * self._width


def num_targets(labels: Sequence[int]) -> int:
    """Tokens of a row that the loss counts; the first one is never predicted."""
    return len(_sources(labels))


def _array(tokens: Sequence[int]) -> Tokens:
    return np.asarray(tokens, dtype=np.int64)


def _sources(labels: Sequence[int]) -> Tokens:
    """Positions in a row that predict a target: those before a labelled token."""
    return np.flatnonzero(_array(labels)[1:] != IGNORE_INDEX)


def _places(end: Piece, positions: Tokens) -> Tokens:
    """Positions in a row as places in the sequence, by the piece that the row ends with."""
    chain = end.chain()
    if len(chain) == 1:
        return positions + end.start
    places = np.concatenate([np.arange(piece.start, piece.start + len(piece.tokens)) for piece in chain])
    return places[positions]


def _batch(inputs: dict[str, Any], sources: Sequence[Tokens], rows: Sequence[TokenRow]) -> Batch:
    counted = [labels[labels != IGNORE_INDEX] for labels in (_array(labels)[1:] for _, labels in rows)]
    sizes = tuple(len(labels) for labels in counted)
    return Batch(
        inputs,
        source_positions=torch.from_numpy(np.concatenate(sources)),
        targets=torch.from_numpy(np.concatenate(counted)),
        num_targets=torch.tensor(sizes),
        targets_per_row=sizes,
        num_tokens=sum(len(ids) for ids, _ in rows),
    )
