"""From a worker's shard of tokenized rows to padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX

# Rows that are shuffled among each other; the buffer bounds a worker's memory.
_SHUFFLE_BUFFER_ROWS = 10_000


class Batch(NamedTuple):
    """Rows padded on the right to the longest of them; all three (rows, tokens), int64."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens that aren't padding."""
        return int(self.attention_mask.sum())


def collate(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_token_id: int, device: torch.device) -> Batch:
    """Pad pairs of `input_ids` and `labels`. Only positions say what is padding: the pad token may well be EOS."""
    width = max(len(input_ids) for input_ids, _ in rows)
    shape = (len(rows), width)
    batch = Batch(
        torch.full(shape, pad_token_id, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
        torch.full(shape, IGNORE_INDEX, dtype=torch.long),
    )
    for index, (input_ids, labels) in enumerate(rows):
        length = len(input_ids)
        batch.input_ids[index, :length] = torch.as_tensor(input_ids)
        batch.attention_mask[index, :length] = 1
        batch.labels[index, :length] = torch.as_tensor(labels)
    return Batch(*(tensor.to(device) for tensor in batch))


def iter_batches(
    shard: Any, *, batch_size: int, pad_token_id: int, device: torch.device, shuffle_seed: int | None = None
) -> Iterator[Batch]:
    """Batches of one pass over a shard.

    Args:
        shard: Ray Data iterator over tokenized rows.
        batch_size: Rows in a batch; the last one may have fewer.
        pad_token_id: Fills the rows up.
        device: Where the tensors go.
        shuffle_seed: Seed of this pass's order; None keeps the order.
    """
    shuffle = {"local_shuffle_buffer_size": _SHUFFLE_BUFFER_ROWS, "local_shuffle_seed": shuffle_seed}
    tables = shard.iter_batches(
        batch_size=batch_size, batch_format="pyarrow", **(shuffle if shuffle_seed is not None else {})
    )
    for table in tables:
        columns = (table.column(name).to_pylist() for name in ("input_ids", "labels"))
        yield collate(list(zip(*columns, strict=True)), pad_token_id, device)
