from __future__ import annotations

import random

import pytest

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.loss.packing import MIN_SHARED_TOKENS, Pieces, TokenRow, pack, pad

FIRST: TokenRow = ([1, 2, 3, 4], [IGNORE_INDEX, IGNORE_INDEX, 3, 4])
SECOND: TokenRow = ([1, 2, 5], [IGNORE_INDEX, IGNORE_INDEX, 5])
OTHER: TokenRow = ([7, 8], [IGNORE_INDEX, 8])


def test_rows_that_begin_alike_share_their_beginning() -> None:
    batch = pack([FIRST, SECOND], min_shared=2)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    assert batch.inputs["pieces"] == Pieces((2, 2, 1), ((0, 1), (0, 2)))
    assert batch.targets.tolist() == [3, 4, 5]
    # The last token of the prefix predicts the first one of either row.
    assert batch.source_positions.tolist() == [1, 2, 1]
    assert batch.targets_per_row == (2, 1)
    assert batch.num_tokens == 7


def test_rows_without_a_common_beginning_stand_behind_each_other() -> None:
    batch = pack([FIRST, OTHER], min_shared=1)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 7, 8]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.source_positions.tolist() == [1, 2, 4]


def row(*ids: int) -> TokenRow:
    """A row whose tokens are all targets."""
    return list(ids), list(ids)


def test_answers_of_a_conversation_make_a_tree() -> None:
    rows = [row(1, 2, 3), row(1, 2, 4, 5, 6), row(1, 2, 4, 5, 7, 8), OTHER, row(1, 2, 4)]
    batch = pack(rows, min_shared=1)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 7, 8]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 2, 3, 4, 4, 5, 0, 1]]
    # The last row is what others begin with.
    assert batch.inputs["pieces"] == Pieces((2, 1, 1, 1, 1, 2, 2), ((0, 1), (0, 2, 3, 4), (0, 2, 3, 5), (6,)))
    assert batch.num_tokens == 3 + 5 + 6 + 2 + 3


@pytest.mark.parametrize("seed", range(20))
def test_every_target_is_predicted_from_what_stands_before_it_in_its_row(seed: int) -> None:
    chance = random.Random(seed)
    rows: list[TokenRow] = []
    for _ in range(chance.randint(1, 12)):
        begin = chance.choice(rows)[0][: chance.randint(0, 9)] if rows and chance.random() < 0.7 else []
        rows.append(row(*begin, *(chance.randint(1, 3) for _ in range(chance.randint(1, 6)))))
    batch = pack(rows, min_shared=chance.randint(1, 3))
    tokens, positions = (batch.inputs[name][0].tolist() for name in ("input_ids", "position_ids"))
    targets = [(number, i) for number, (ids, _) in enumerate(rows) for i in range(1, len(ids))]
    for (number, i), source, target in zip(
        targets, batch.source_positions.tolist(), batch.targets.tolist(), strict=True
    ):
        assert (tokens[source], positions[source], target) == (rows[number][0][i - 1], i - 1, rows[number][0][i])
    pieces = batch.inputs["pieces"]
    starts = [sum(pieces.sizes[:number]) for number in range(len(pieces.sizes))]
    chains = {tuple(tokens[starts[n] + i] for n in chain for i in range(pieces.sizes[n])) for chain in pieces.chains}
    assert chains <= {tuple(ids) for ids, _ in rows}
    assert sorted({number for chain in pieces.chains for number in chain}) == list(range(len(pieces.sizes)))


def test_a_few_tokens_in_common_are_not_worth_a_piece() -> None:
    begin = list(range(MIN_SHARED_TOKENS - 1))
    assert len(pack([row(*begin, 98), row(*begin, 99)]).inputs["pieces"].sizes) == 2
    assert len(pack([row(*begin, 97, 98), row(*begin, 97, 99)]).inputs["pieces"].sizes) == 3


def test_padding_is_told_by_position() -> None:
    """The pad token may well be one that rows have."""
    batch = pad([FIRST, OTHER], pad_token_id=8)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4], [7, 8, 8, 8]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.targets.tolist() == [3, 4, 8]
    assert batch.source_positions.tolist() == [1, 2, 4]
    assert batch.num_tokens == 6
