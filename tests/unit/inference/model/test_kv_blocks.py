from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sienn_ray.inference.model.kv_blocks import BlockPool, BlockTable, runs

PROMPT = list(range(100, 110))


def taken(pool: BlockPool, prompt: list[int] = PROMPT, num_tokens: int = 12, identity: str = "base") -> BlockTable:
    table = pool.take(identity, prompt, num_tokens)
    assert table is not None
    return table


def test_a_request_gets_room_for_all_that_it_may_come_to() -> None:
    pool = BlockPool(8, 4)
    assert len(taken(pool, num_tokens=13).blocks) == 4
    assert pool.num_free == 4


def test_blocks_lie_side_by_side_where_there_is_room() -> None:
    pool = BlockPool(8, 4)
    tables = [taken(pool, [number], 4) for number in range(8)]
    for number in (0, 3, 4, 6):
        pool.give_back(tables[number])
    assert taken(pool, [9], 8).blocks == [3, 4]
    assert taken(pool, [9], 8).blocks == [0, 6]


def test_too_few_blocks_are_nothing_rather_than_some() -> None:
    pool = BlockPool(4, 4)
    table = taken(pool)
    assert pool.take("base", [1], 8) is None
    assert pool.num_free == 1
    pool.give_back(table)
    assert pool.take("base", [1], 8) is not None


def test_an_equal_beginning_is_used_again_while_and_after_its_request_runs() -> None:
    pool = BlockPool(8, 4)
    first = taken(pool)
    pool.note(first, PROMPT)
    second = taken(pool, [*PROMPT[:9], 7])
    assert second.blocks[:2] == first.blocks[:2]
    assert second.num_shared_tokens == 8
    assert not set(second.blocks[2:]) & set(first.blocks)
    pool.give_back(first)
    pool.give_back(second)
    assert pool.num_free == 8
    assert taken(pool).num_shared_tokens == 8


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    pool = BlockPool(8, 4)
    first = taken(pool, PROMPT[:8], 8)
    pool.note(first, PROMPT[:8])
    assert taken(pool, PROMPT[:8], 8).num_shared_tokens == 4


@pytest.mark.parametrize(
    ("identity", "prompt"), [("other", PROMPT), ("base", [1, *PROMPT[1:]]), ("base", [*PROMPT[4:8], *PROMPT[:4], 1])]
)
def test_nothing_is_shared_between_adapters_or_other_tokens(identity: str, prompt: list[int]) -> None:
    pool = BlockPool(8, 4)
    pool.note(taken(pool), PROMPT)
    assert taken(pool, prompt, identity=identity).num_shared_tokens == 0


def test_a_block_that_is_taken_anew_is_forgotten() -> None:
    pool = BlockPool(3, 4)
    first = taken(pool)
    pool.note(first, PROMPT)
    pool.give_back(first)
    other = taken(pool, [1], 12)
    pool.give_back(other)
    assert taken(pool).num_shared_tokens == 0


def test_ends_are_forgotten_before_beginnings() -> None:
    pool = BlockPool(3, 4)
    prompt = list(range(13))
    first = taken(pool, prompt[:12], 12)
    pool.note(first, prompt[:12])
    pool.give_back(first)
    pool.give_back(taken(pool, [99], 4))
    assert taken(pool, prompt[:9], 12).num_shared_tokens == 8


def test_two_requests_that_compute_the_same_keep_blocks_of_their_own() -> None:
    pool = BlockPool(8, 4)
    first, second = taken(pool), taken(pool)
    pool.note(first, PROMPT)
    pool.note(second, PROMPT)
    assert not set(first.blocks) & set(second.blocks)
    pool.give_back(first)
    pool.give_back(second)
    assert pool.num_free == 8
    assert taken(pool).num_shared_tokens == 8


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20), st.booleans()), max_size=40))
def test_blocks_are_never_lost_nor_given_to_two(steps: list[tuple[int, int, bool]]) -> None:
    pool = BlockPool(10, 4)
    tables: list[tuple[BlockTable, list[int]]] = []
    for first, length, gives_back in steps:
        if gives_back and tables:
            pool.give_back(tables.pop(0)[0])
            continue
        prompt = [first, *range(length)]
        table = pool.take("base", prompt, len(prompt) + 2)
        if table is not None:
            own = set(table.blocks[table.num_shared_tokens // 4 :])
            assert not own & {block for other, _ in tables for block in other.blocks}
            pool.note(table, prompt)
            tables.append((table, prompt))
        assert pool.num_free + len({block for other, _ in tables for block in other.blocks}) == 10
    for table, _ in tables:
        pool.give_back(table)
    assert pool.num_free == 10


def test_runs_join_neighbouring_blocks() -> None:
    assert runs([2, 3, 7, 4], 4, 14) == [(8, 8), (28, 4), (16, 2)]
    assert runs([2, 3], 4, 3) == [(8, 3)]
    assert runs([2, 3], 4, 0) == []
