"""From tokenized rows to batches without padding, or with as little as can be where a base model needs it.

A packed batch is one sequence: groups of rows, each led by what its rows have in common, which is then computed once:

    [shared prefix | rest of row 1 | rest of row 2 | ...] [shared prefix | rest of row 3 | ...]

Position ids begin anew with each row, and `packed_attention` lets a row see its own prefix and itself. Gradients of a
prefix are the sums over its rows, so all is as if each row were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX

# `input_ids` and `labels` of a row.
TokenRow = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class RowGroup:
    """Rows of a packed batch that begin alike, in tokens.

    Args:
        prefix: Tokens that they have in common; may be 0.
        rests: What each row has behind them; at least 1.
    """

    prefix: int
    rests: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Rows as the base model takes them, and what has to be predicted.

    Args:
        inputs: Arguments of the base model's forward pass. Hidden states come back as (batch, tokens, hidden).
        source_positions: (targets,) int64; index of the hidden state that predicts each target, among batch x tokens.
        targets: (targets,) int64; the tokens that the loss counts, row after row.
        targets_per_row: How many of them each row has.
        num_tokens: Tokens of the rows, without padding; a shared prefix counts for each of its rows.
    """

    inputs: dict[str, Any]
    source_positions: torch.Tensor
    targets: torch.Tensor
    targets_per_row: tuple[int, ...]
    num_tokens: int


def common_prefix(rows: Sequence[TokenRow]) -> int:
    """Tokens that all rows begin with, but for the last one of the shortest: a row keeps at least one of its own."""
    first, *others = (input_ids for input_ids, _ in rows)
    length = min(len(input_ids) for input_ids, _ in rows) - 1
    return next((i for i in range(length) if any(other[i] != first[i] for other in others)), length) if others else 0


def pack(rows: Sequence[TokenRow], device: torch.device, group_size: int | None = None) -> Batch:
    """Put rows behind each other into one sequence.

    Args:
        rows: At least one.
        device: Where the tensors go.
        group_size: Rows whose common prefix is shared; all by default. 2 fits the pairs of preference data.

    Example:
        >>> rows = [([1, 2, 3], [-100, 2, 3]), ([1, 2, 9], [-100, 2, 9])]
        >>> batch = pack(rows, torch.device("cpu"))
        >>> batch.inputs["input_ids"].tolist(), batch.targets.tolist()
        ([[1, 2, 3, 9]], [2, 3, 2, 9])
    """
    size = group_size or len(rows)
    input_ids: list[int] = []
    position_ids: list[int] = []
    sources: list[int] = []
    groups = []
    for start in range(0, len(rows), size):
        members = rows[start : start + size]
        prefix = common_prefix(members)
        groups.append(RowGroup(prefix, tuple(len(ids) - prefix for ids, _ in members)))
        prefix_start = len(input_ids)
        input_ids += members[0][0][:prefix]
        position_ids += range(prefix)
        for ids, labels in members:
            rest_start = len(input_ids) - prefix  # where the row would begin if it had its prefix before it
            input_ids += ids[prefix:]
            position_ids += range(prefix, len(ids))
            sources += [(prefix_start if i < prefix else rest_start) + i for i in _sources(labels)]
    inputs = {
        "input_ids": torch.tensor([input_ids], device=device),
        "position_ids": torch.tensor([position_ids], device=device),
        "row_groups": tuple(groups),
    }
    return _batch(inputs, sources, rows, device)


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
