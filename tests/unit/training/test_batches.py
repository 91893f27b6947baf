from __future__ import annotations

import pytest
import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.batches import Batch, Collator, iter_own_share, iter_steps
from tests.fakes_training import FakeShard, TokenRow

CPU = torch.device("cpu")
EOS = 2
ROWS: list[TokenRow] = [([5, 6, 7, EOS], [IGNORE_INDEX, IGNORE_INDEX, 7, EOS]), ([8, EOS], [IGNORE_INDEX, EOS])]
COLLATE = Collator(EOS, CPU)


def numbered(count: int) -> list[TokenRow]:
    """Rows of different lengths; row number n holds only n."""
    return [([number] * (number + 1), [number] * (number + 1)) for number in range(count)]


def numbers_in(batch: Batch) -> list[int]:
    return [int(row[0]) for row in batch.input_ids]


def test_rows_are_padded_to_the_longest() -> None:
    batch = Collator(0, CPU)(ROWS)
    assert batch.input_ids.tolist() == [[5, 6, 7, EOS], [8, EOS, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [
        [IGNORE_INDEX, IGNORE_INDEX, 7, EOS],
        [IGNORE_INDEX, EOS, IGNORE_INDEX, IGNORE_INDEX],
    ]
    assert {tensor.dtype for tensor in batch} == {torch.long}


def test_mask_goes_by_position_when_pad_is_eos() -> None:
    batch = COLLATE(ROWS)
    assert batch.input_ids[1].tolist() == [8, EOS, EOS, EOS]
    assert batch.attention_mask[1].tolist() == [1, 1, 0, 0]
    assert batch.labels[1].tolist() == [IGNORE_INDEX, EOS, IGNORE_INDEX, IGNORE_INDEX]


def test_padding_is_not_counted() -> None:
    assert COLLATE(ROWS).num_tokens == 6


def test_targets_are_what_is_predicted() -> None:
    assert COLLATE(ROWS).num_targets == 3
    assert COLLATE([([7, 8], [7, 8])]).num_targets == 1  # nothing comes before a row's first token


def test_one_row_has_no_padding() -> None:
    assert COLLATE(ROWS[1:]).attention_mask.tolist() == [[1, 1]]


class TestSteps:
    @pytest.mark.parametrize(
        ("rows_per_step", "micro_batch_rows", "sizes"),
        [
            (4, 4, [[4], [4], [2]]),
            (4, 2, [[2, 2], [2, 2], [2]]),
            (5, 2, [[2, 2, 1], [2, 2, 1]]),
            (8, 3, [[3, 3, 2], [2]]),
            (64, 4, [[4, 4, 2]]),
            (1, 1, [[1]] * 10),
        ],
    )
    def test_every_row_is_in_one_micro_batch(
        self, rows_per_step: int, micro_batch_rows: int, sizes: list[list[int]]
    ) -> None:
        steps = list(
            iter_steps(
                FakeShard(numbered(10)),
                COLLATE,
                rows_per_step=rows_per_step,
                micro_batch_rows=micro_batch_rows,
                shuffle_seed=1,
            )
        )
        assert [[len(batch.input_ids) for batch in step] for step in steps] == sizes
        assert sorted(number for step in steps for batch in step for number in numbers_in(batch)) == list(range(10))

    def test_order_comes_from_the_seed(self) -> None:
        shard = FakeShard(numbered(10))
        list(iter_steps(shard, COLLATE, rows_per_step=2, micro_batch_rows=2, shuffle_seed=43))
        assert shard.options["local_shuffle_seed"] == 43
        assert shard.options["local_shuffle_buffer_size"] >= 10_000


class TestOwnShare:
    @pytest.mark.parametrize("num_rows", [1, 2, 5, 12, 13])
    @pytest.mark.parametrize("world_size", [1, 2, 3])
    def test_every_row_falls_to_one_worker(self, num_rows: int, world_size: int) -> None:
        shares = [
            [
                number
                for batch in iter_own_share(
                    FakeShard(numbered(num_rows)), COLLATE, batch_rows=2, rank=rank, world_size=world_size
                )
                for number in numbers_in(batch)
            ]
            for rank in range(world_size)
        ]
        assert sorted(number for share in shares for number in share) == list(range(num_rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_batches_are_no_larger_than_asked_and_order_is_kept(self) -> None:
        shard = FakeShard(numbered(5))
        batches = list(iter_own_share(shard, COLLATE, batch_rows=2, rank=0, world_size=1))
        assert [numbers_in(batch) for batch in batches] == [[0, 1], [2, 3], [4]]
        assert shard.options == {}

    def test_a_worker_for_whom_nothing_is_left_has_no_batch(self) -> None:
        assert list(iter_own_share(FakeShard(numbered(1)), COLLATE, batch_rows=4, rank=1, world_size=2)) == []
