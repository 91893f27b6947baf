"""From a worker's rows, tokenized, to padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX

# Rows that are shuffled among each other; the buffer bounds a worker's memory.
_SHUFFLE_BUFFER_ROWS = 10_000

TokenRow = tuple[Sequence[int], Sequence[int]]


class Batch(NamedTuple):
    """Rows padded on the right to the longest of them; all three (rows, tokens), int64."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens that aren't padding."""
        return int(self.attention_mask.sum())

    @property
    def num_targets(self) -> int:
        """Tokens that the loss counts."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())


class Collator(NamedTuple):
    """Makes batches.

    Args:
        pad_token_id: Fills rows up.
        device: Where the tensors go.
    """

    pad_token_id: int
    device: torch.device

    def __call__(self, rows: Sequence[TokenRow]) -> Batch:
        """Pad pairs of `input_ids` and `labels`. Only positions say what is padding: the pad token may well be EOS."""
        width = max(len(input_ids) for input_ids, _ in rows)
        shape = (len(rows), width)
        batch = Batch(
            torch.full(shape, self.pad_token_id, dtype=torch.long),
            torch.zeros(shape, dtype=torch.long),
            torch.full(shape, IGNORE_INDEX, dtype=torch.long),
        )
        for index, (input_ids, labels) in enumerate(rows):
            length = len(input_ids)
            batch.input_ids[index, :length] = torch.as_tensor(input_ids)
            batch.attention_mask[index, :length] = 1
            batch.labels[index, :length] = torch.as_tensor(labels)
        return Batch(*(tensor.to(self.device) for tensor in batch))


def iter_steps(
    shard: Any, collate: Collator, *, rows_per_step: int, micro_batch_rows: int, shuffle_seed: int
) -> Iterator[list[Batch]]:
    """The micro batches of each optimizer step in one pass over a worker's own shard.

    Args:
        shard: Ray Data iterator over tokenized rows.
        collate: Makes the batches.
        rows_per_step: Rows of a step on this worker; the last step may have fewer.
        micro_batch_rows: Rows of a micro batch; the last one of a step may have fewer.
        shuffle_seed: Seed of this pass's order.
    """
    tables = shard.iter_batches(
        batch_size=rows_per_step,
        batch_format="pyarrow",
        local_shuffle_buffer_size=_SHUFFLE_BUFFER_ROWS,
        local_shuffle_seed=shuffle_seed,
    )
    for table in tables:
        rows = _rows(table)
        starts = range(0, len(rows), micro_batch_rows)
        yield [collate(rows[start : start + micro_batch_rows]) for start in starts]


def iter_own_share(shard: Any, collate: Collator, *, batch_rows: int, rank: int, world_size: int) -> Iterator[Batch]:
    """Batches of the rows that fall to one worker, of a dataset that every worker sees whole.

    Dealt out row by row, so that no row is left over: shards of equal size would drop the remainder.

    Args:
        shard: Ray Data iterator over tokenized rows, in the same order on every worker.
        collate: Makes the batches.
        batch_rows: Rows of a batch on this worker.
        rank: This worker's number.
        world_size: Workers among which the rows are dealt out.
    """
    for table in shard.iter_batches(batch_size=batch_rows * world_size, batch_format="pyarrow"):
        own = _rows(table)[rank::world_size]
        if own:
            yield collate(own)


def _rows(table: Any) -> list[TokenRow]:
    columns = (table.column(name).to_pylist() for name in ("input_ids", "labels"))
    return list(zip(*columns, strict=True))
