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
from typing import Any

import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX

# `input_ids` and `labels` of a row.
TokenRow = tuple[Sequence[int], Sequence[int]]

# Fewer tokens in common are computed for each row: putting pieces together takes time as well.
MIN_SHARED_TOKENS = 16


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


@dataclass(frozen=True)
class Batch:
    """Rows as the base model takes them, and what has to be predicted.

    Args:
        inputs: Arguments of the base model's forward pass. Hidden states come back as (batch, tokens, hidden).
        source_positions: (targets,) int64; index of the hidden state that predicts each target, among batch x tokens.
        targets: (targets,) int64; the tokens that the loss counts, row after row.
        targets_per_row: How many of them each row has.
        num_tokens: Tokens of the rows, without padding; a shared piece counts for each of its rows.
    """

    inputs: dict[str, Any]
    source_positions: torch.Tensor
    targets: torch.Tensor
    targets_per_row: tuple[int, ...]
    num_tokens: int


class _Piece:
    """A piece of the tree: tokens, and the pieces that go on from them.

    Args:
        tokens: Its tokens.
        parent: The piece before it; None is the tree's root, which has no tokens.
    """

    def __init__(self, tokens: Sequence[int], parent: _Piece | None) -> None:
        self.tokens = tokens
        self.parent = parent
        self.followers: list[_Piece] = []
        # Among the pieces, and where it begins in the sequence.
        self.number = 0
        self.start = 0

    def insert(self, ids: Sequence[int], min_shared: int) -> _Piece:
        """Add a row to the tree whose root this is; gives the piece that it ends with."""
        piece, depth = self, 0
        while True:
            rest = ids[depth:]
            common, nearest = max(
                ((_num_common(each.tokens, rest), each) for each in piece.followers),
                key=lambda found: found[0],
                default=(0, piece),
            )
            if common < min_shared:
                own = _Piece(rest, piece)
                piece.followers.append(own)
                return own
            piece = nearest if common == len(nearest.tokens) else piece.split(nearest, common)
            depth += common
            if depth == len(ids):
                return piece

    def split(self, follower: _Piece, size: int) -> _Piece:
        """Put the first tokens of a follower into a piece of their own between the two, and return that."""
        first = _Piece(follower.tokens[:size], self)
        first.followers = [follower]
        self.followers[self.followers.index(follower)] = first
        follower.tokens, follower.parent = follower.tokens[size:], first
        return first

    def chain(self) -> list[_Piece]:
        """Return the pieces from the root's followers to this one."""
        found: list[_Piece] = []
        piece = self
        while piece.parent is not None:
            found.append(piece)
            piece = piece.parent
        return found[::-1]

    def in_order(self) -> list[_Piece]:
        """Number all pieces of the tree, and return them, each before those that go on from it."""
        found: list[_Piece] = []
        waiting = self.followers[::-1]
        start = 0
        while waiting:
            piece = waiting.pop()
            piece.number, piece.start = len(found), start
            start += len(piece.tokens)
            found.append(piece)
            waiting += piece.followers[::-1]
        return found


def _num_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(i for i in range(length) if first[i] != second[i])


def as_pieces(pieces: Pieces, device: torch.device) -> dict[str, Any]:  # noqa: ARG001
    """Make the arguments of `packed_attention`."""
    return {"pieces": pieces}


def pack(
    rows: Sequence[TokenRow],
    device: torch.device,
    min_shared: int = MIN_SHARED_TOKENS,
    attention_inputs: Callable[[Pieces, torch.device], dict[str, Any]] = as_pieces,
) -> Batch:
    """Put rows into one sequence.

    Args:
        rows: At least one.
        device: Where the tensors go.
        min_shared: Tokens in common, at least 1, that rows share.
        attention_inputs: Makes the arguments that the attention tells rows by.

    Example:
        >>> rows = [([1, 2, 3], [-100, 2, 3]), ([1, 2, 9], [-100, 2, 9])]
        >>> batch = pack(rows, torch.device("cpu"), min_shared=2)
        >>> batch.inputs["input_ids"].tolist(), batch.targets.tolist()
        ([[1, 2, 3, 9]], [2, 3, 2, 9])
    """
    root = _Piece((), None)
    ends = [root.insert(list(ids), min_shared) for ids, _ in rows]
    pieces = root.in_order()
    sources: list[int] = []
    for end, (_, labels) in zip(ends, rows, strict=True):
        places = [place for piece in end.chain() for place in range(piece.start, piece.start + len(piece.tokens))]
        sources += [places[i] for i in _sources(labels)]
    chains = tuple(tuple(each.number for each in piece.chain()) for piece in pieces if not piece.followers)
    inputs = {
        "input_ids": torch.tensor([[token for piece in pieces for token in piece.tokens]], device=device),
        "position_ids": torch.tensor([_positions(pieces)], device=device),
        **attention_inputs(Pieces(tuple(len(piece.tokens) for piece in pieces), chains), device),
    }
    return _batch(inputs, sources, rows, device)


def _positions(pieces: Sequence[_Piece]) -> list[int]:
    """Places of tokens within their rows."""
    positions: list[int] = []
    depths: list[int] = []  # by the pieces' numbers; a piece stands behind its parent
    for piece in pieces:
        before = piece.parent
        is_first = before is None or before.parent is None
        depth = 0 if before is None or is_first else depths[before.number] + len(before.tokens)
        depths.append(depth)
        positions += range(depth, depth + len(piece.tokens))
    return positions


def pad(rows: Sequence[TokenRow], device: torch.device, pad_token_id: int) -> Batch:
    """Rows side by side, filled up on the right to the longest; only positions say what is padding."""
    width = max(len(input_ids) for input_ids, _ in rows)
    input_ids = torch.full((len(rows), width), pad_token_id)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    sources: list[int] = []
    for number, (ids, labels) in enumerate(rows):
        input_ids[number, : len(ids)] = torch.as_tensor(ids)
        attention_mask[number, : len(ids)] = 1
        sources += [number * width + i for i in _sources(labels)]
    inputs = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
    return _batch(inputs, sources, rows, device)


def _sources(labels: Sequence[int]) -> list[int]:
    """Positions in a row that predict a target: those before a labelled token."""
    return [i - 1 for i in range(1, len(labels)) if labels[i] != IGNORE_INDEX]


def num_targets(labels: Sequence[int]) -> int:
    """Tokens of a row that the loss counts; the first one is never predicted."""
    return sum(label != IGNORE_INDEX for label in labels[1:])


def _batch(inputs: dict[str, Any], sources: list[int], rows: Sequence[TokenRow], device: torch.device) -> Batch:
    targets = [label for _, labels in rows for label in labels[1:] if label != IGNORE_INDEX]
    return Batch(
        inputs,
        torch.tensor(sources, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        tuple(num_targets(labels) for _, labels in rows),
        sum(len(ids) for ids, _ in rows),
    )
