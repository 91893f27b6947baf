from __future__ import annotations

import numpy as np
import pytest

from sienn_ray.datasets.row_order import NO_ROWS, Part, RowGroup, RowNumbers, RowOrder, held_out_rows

WINDOW_BYTES = 32 * 1024**2
SEEDS = [0, 1, 7, 42, 2**31]


def groups_of(*sizes: int, num_bytes: int = 1) -> list[RowGroup]:
    starts = np.cumsum([0, *sizes])[:-1]
    return [RowGroup(int(start), size, num_bytes) for start, size in zip(starts, sizes, strict=True)]


# Group sizes and their bytes: one group, many in one window, windows of two, each its own window, large ones.
SHAPES = {
    "one group": groups_of(37),
    "one window": groups_of(5, 1, 9, 12, 3),
    "windows of two": groups_of(5, 1, 9, 12, 3, num_bytes=WINDOW_BYTES // 2),
    "windows of one": groups_of(5, 1, 9, 12, 3, num_bytes=WINDOW_BYTES),
    "more rows than a window": groups_of(12_000, 9_000, 300, 800, 11_000),
    "none": [],
}


def order_of(name: str, seed: int | None, excluded: RowNumbers = NO_ROWS, *, is_inverted: bool = False) -> RowOrder:
    return RowOrder.of(SHAPES[name], seed, excluded, is_inverted=is_inverted)


def num_rows(name: str) -> int:
    return sum(group.num_rows for group in SHAPES[name])


def epoch_rows(order: RowOrder, epoch: int, first_position: int = 0) -> list[int]:
    return [int(row) for part in order.parts(epoch, first_position) for row in order.rows(part)]


def some_rows(name: str, seed: int, share: float) -> RowNumbers:
    chosen = np.random.default_rng(seed).random(num_rows(name)) < share
    return np.flatnonzero(chosen).astype(np.int64)


@pytest.mark.parametrize("seed", [*SEEDS, None])
@pytest.mark.parametrize("name", SHAPES)
class TestEachEpoch:
    def test_has_every_row_once(self, name: str, seed: int | None) -> None:
        order = order_of(name, seed)
        assert order.num_rows == num_rows(name)
        for epoch in (1, 2, 3):
            assert sorted(epoch_rows(order, epoch)) == list(range(num_rows(name)))

    def test_has_no_excluded_row_or_only_those(self, name: str, seed: int | None) -> None:
        excluded = some_rows(name, seed or 0, 0.3)
        others = np.setdiff1d(np.arange(num_rows(name)), excluded).tolist()
        for is_inverted, expected in ((False, others), (True, excluded.tolist())):
            order = order_of(name, seed, excluded, is_inverted=is_inverted)
            assert order.num_rows == len(expected)
            assert sorted(epoch_rows(order, 1)) == expected

    def test_may_lose_whole_groups(self, name: str, seed: int | None) -> None:
        groups = SHAPES[name]
        kept = groups[len(groups) // 2 :][:1]
        left = [row for group in kept for row in range(group.first_row, group.first_row + group.num_rows)]
        excluded = np.setdiff1d(np.arange(num_rows(name)), left)
        assert sorted(epoch_rows(order_of(name, seed, excluded), 1)) == left

    def test_goes_on_from_every_position(self, name: str, seed: int | None) -> None:
        excluded = some_rows(name, 3, 0.2)
        order = order_of(name, seed, excluded)
        whole = epoch_rows(order, 2)
        every = range(order.num_rows + 1) if order.num_rows < 100 else [0, 1, 63, 64, 9_999, 10_000, 10_001, 20_000]
        for position in every:
            assert epoch_rows(order, 2, position) == whole[position:]

    def test_says_where_its_parts_stand(self, name: str, seed: int | None) -> None:
        order = order_of(name, seed)
        for first in (0, order.num_rows // 3):
            position = first
            for part in order.parts(1, first):
                assert part.first_position == position
                position += len(order.rows(part))
            assert position == order.num_rows


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "none"])
class TestShuffling:
    def test_same_seed_same_order(self, name: str) -> None:
        assert epoch_rows(order_of(name, 5), 2) == epoch_rows(order_of(name, 5), 2)

    def test_epochs_and_seeds_differ(self, name: str) -> None:
        orders = [epoch_rows(order_of(name, seed), epoch) for seed in SEEDS for epoch in (1, 2, 3)]
        assert len({tuple(rows) for rows in orders}) == len(orders)

    def test_without_a_seed_rows_keep_the_dataset_s_order(self, name: str) -> None:
        excluded = some_rows(name, 1, 0.5)
        assert epoch_rows(order_of(name, None), 1) == list(range(num_rows(name)))
        assert epoch_rows(order_of(name, None, excluded, is_inverted=True), 4) == excluded.tolist()


@pytest.mark.parametrize("is_by_epoch", [True, False])
def test_windows_change_places_with_epoch_and_seed(*, is_by_epoch: bool) -> None:
    places = [(0, number) if is_by_epoch else (number, 1) for number in range(1, 51)]
    firsts = {next(order_of("windows of one", seed).parts(epoch)).window for seed, epoch in places}
    assert firsts == {0, 1, 2, 3, 4}


def test_rows_of_a_window_are_mixed() -> None:
    """Over group borders: its first half isn't its first groups."""
    rows = epoch_rows(order_of("one window", 0), 1)
    assert 5 < np.mean(rows[:15]) < 24
    assert sorted(rows[:15]) != list(range(15))


def test_groups_make_windows_until_one_is_full() -> None:
    by_rows = groups_of(4_000, 6_000, 9_999, 1, 20_000, 5)
    assert RowOrder.of(by_rows, 0, NO_ROWS).windows == ((0, 1), (2, 3), (4,), (5,))
    by_bytes = groups_of(1, 1, 1, 1, 1, num_bytes=WINDOW_BYTES // 2)
    assert RowOrder.of(by_bytes, 0, NO_ROWS).windows == ((0, 1), (2, 3), (4,))


@pytest.mark.parametrize("first_position", [0, 1_000])
def test_parts_begin_small(first_position: int) -> None:
    order = RowOrder.of(groups_of(10_000), 0, NO_ROWS)
    sizes = [part.stop - part.start for part in order.parts(1, first_position)]
    assert sizes[:4] == [64, 256, 1024, 2048]
    assert set(sizes[4:-1]) == {2048}
    assert 0 < sizes[-1] <= 2048
    assert sum(sizes) == 10_000 - first_position


def test_a_part_ends_with_its_window() -> None:
    order = RowOrder.of(groups_of(100, 100, num_bytes=WINDOW_BYTES), None, NO_ROWS)
    assert list(order.parts(3)) == [Part(3, 0, 0, 64, 0), Part(3, 0, 64, 100, 64), Part(3, 1, 0, 100, 100)]
    assert list(order.parts(3, 150)) == [Part(3, 1, 50, 100, 150)]


class TestHeldOut:
    @pytest.mark.parametrize(
        ("num_rows", "split", "count"),
        [(100, 0.1, 10), (2, 0.1, 1), (2, 0.5, 1), (3, 0.5, 2), (1, 0.5, 0), (0, 0.5, 0), (1000, 0.0, 0), (7, 0.01, 1)],
    )
    def test_count(self, num_rows: int, split: float, count: int) -> None:
        held_out = held_out_rows(num_rows, split, seed=42)
        assert len(held_out) == count
        assert all(0 <= row < num_rows for row in held_out)
        assert held_out.dtype == np.int64

    @pytest.mark.parametrize("seed", SEEDS)
    def test_they_ascend_and_none_comes_twice(self, seed: int) -> None:
        held_out = held_out_rows(500, 0.3, seed)
        assert np.all(np.diff(held_out) > 0)

    def test_something_is_left_to_train_on(self) -> None:
        assert len(held_out_rows(2, 0.99, seed=0)) == 1

    def test_the_seed_chooses(self) -> None:
        one, again, other = (held_out_rows(100, 0.2, seed).tolist() for seed in (1, 1, 2))
        assert one == again != other
