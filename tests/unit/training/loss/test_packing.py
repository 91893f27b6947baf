from __future__ import annotations

import pytest
import torch

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.loss.packing import RowGroup, TokenRow, common_prefix, pack, pad

CPU = torch.device("cpu")
FIRST: TokenRow = ([1, 2, 3, 4], [IGNORE_INDEX, IGNORE_INDEX, 3, 4])
SECOND: TokenRow = ([1, 2, 5], [IGNORE_INDEX, IGNORE_INDEX, 5])
OTHER: TokenRow = ([7, 8], [IGNORE_INDEX, 8])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([FIRST], 0),
        ([FIRST, SECOND], 2),
        ([FIRST, FIRST], 3),  # a row keeps one token of its own
        ([FIRST, OTHER], 0),
        ([([1], [1]), ([1], [1])], 0),
    ],
)
def test_common_prefix(rows: list[TokenRow], expected: int) -> None:
    assert common_prefix(rows) == expected


def test_rows_that_begin_alike_share_their_beginning() -> None:
    batch = pack([FIRST, SECOND], CPU)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    assert batch.inputs["row_groups"] == (RowGroup(2, (2, 1)),)
    assert batch.targets.tolist() == [3, 4, 5]
    # The last token of the prefix predicts the first one of either row.
    assert batch.source_positions.tolist() == [1, 2, 1]
    assert batch.targets_per_row == (2, 1)
    assert batch.num_tokens == 7


def test_rows_without_a_common_beginning_stand_behind_each_other() -> None:
    batch = pack([FIRST, OTHER], CPU)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 7, 8]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.source_positions.tolist() == [1, 2, 4]


def test_groups_share_only_among_themselves() -> None:
    batch = pack([FIRST, SECOND, OTHER, ([7, 9], [IGNORE_INDEX, 9])], CPU, group_size=2)
    assert batch.inputs["row_groups"] == (RowGroup(2, (2, 1)), RowGroup(1, (1, 1)))
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5, 7, 8, 9]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2, 0, 1, 1]]
    assert batch.source_positions.tolist() == [1, 2, 1, 5, 5]


def test_padding_is_told_by_position() -> None:
    """The pad token may well be one that rows have."""
    batch = pad([FIRST, OTHER], CPU, pad_token_id=8)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4], [7, 8, 8, 8]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.targets.tolist() == [3, 4, 8]
    assert batch.source_positions.tolist() == [1, 2, 4]
    assert batch.num_tokens == 6
