from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.batches import collate, iter_batches

CPU = torch.device("cpu")
EOS = 2
ROWS = [([5, 6, 7, EOS], [IGNORE_INDEX, IGNORE_INDEX, 7, EOS]), ([8, EOS], [IGNORE_INDEX, EOS])]


def test_rows_are_padded_to_the_longest() -> None:
    batch = collate(ROWS, pad_token_id=0, device=CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, EOS], [8, EOS, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [
        [IGNORE_INDEX, IGNORE_INDEX, 7, EOS],
        [IGNORE_INDEX, EOS, IGNORE_INDEX, IGNORE_INDEX],
    ]
    assert {tensor.dtype for tensor in batch} == {torch.long}


def test_mask_goes_by_position_when_pad_is_eos() -> None:
    batch = collate(ROWS, pad_token_id=EOS, device=CPU)
    assert batch.input_ids[1].tolist() == [8, EOS, EOS, EOS]
    assert batch.attention_mask[1].tolist() == [1, 1, 0, 0]
    assert batch.labels[1].tolist() == [IGNORE_INDEX, EOS, IGNORE_INDEX, IGNORE_INDEX]


def test_padding_is_not_counted() -> None:
    assert collate(ROWS, pad_token_id=EOS, device=CPU).num_tokens == 6


def test_one_row_has_no_padding() -> None:
    assert collate(ROWS[1:], pad_token_id=0, device=CPU).attention_mask.tolist() == [[1, 1]]


class FakeShard:
    """What Ray Data hands a worker: tables of tokenized rows; remembers how it was asked."""

    def __init__(self, rows: list[tuple[list[int], list[int]]]) -> None:
        self._rows = rows
        self.options: dict[str, Any] = {}

    def iter_batches(self, *, batch_size: int, batch_format: str, **options: Any) -> Iterator[pa.Table]:
        assert batch_format == "pyarrow"
        self.options = options
        for start in range(0, len(self._rows), batch_size):
            input_ids, labels = zip(*self._rows[start : start + batch_size], strict=True)
            yield pa.table({"input_ids": list(input_ids), "labels": list(labels)})


def test_every_row_is_in_one_batch() -> None:
    rows = [([index] * (index + 1), [index] * (index + 1)) for index in range(5)]
    batches = list(iter_batches(FakeShard(rows), batch_size=2, pad_token_id=9, device=CPU))
    assert [batch.input_ids.shape for batch in batches] == [(2, 2), (2, 4), (1, 5)]
    seen = [ids[mask.bool()].tolist() for batch in batches for ids, mask in zip(*batch[:2], strict=True)]
    assert seen == [input_ids for input_ids, _ in rows]


@pytest.mark.parametrize(("seed", "expected"), [(None, None), (0, 0), (43, 43)])
def test_order_is_shuffled_only_with_a_seed(seed: int | None, expected: int | None) -> None:
    shard = FakeShard(ROWS)
    list(iter_batches(shard, batch_size=2, pad_token_id=0, device=CPU, shuffle_seed=seed))
    assert shard.options.get("local_shuffle_seed") == expected
    assert ("local_shuffle_buffer_size" in shard.options) is (seed is not None)
