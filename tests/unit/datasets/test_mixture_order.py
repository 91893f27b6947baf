from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sienn_ray.datasets.mixture_order import MixtureOrder, Portion
from sienn_ray.datasets.row_order import NO_ROWS, WINDOW_BYTES, RowGroup, RowNumbers

SEED = 7


def portions_of(*members: tuple[list[int], float], num_bytes: int = 1) -> tuple[Portion, ...]:
    """Datasets with groups of so many rows, each with its weight."""
    portions, first_row = [], 0
    for sizes, weight in members:
        starts = first_row + np.cumsum([0, *sizes])[:-1]
        groups = [RowGroup(int(start), size, num_bytes) for start, size in zip(starts, sizes, strict=True)]
        portions.append(Portion(tuple(groups), weight))
        first_row += sum(sizes)
    return tuple(portions)


def order_of(
    *members: tuple[list[int], float], excluded: RowNumbers = NO_ROWS, seed: int = SEED, num_bytes: int = 1
) -> MixtureOrder:
    return MixtureOrder(portions_of(*members, num_bytes=num_bytes), seed, excluded)


def epoch_rows(order: MixtureOrder, epoch: int, first_position: int = 0) -> list[int]:
    return [int(row) for part in order.parts(epoch, first_position) for row in order.rows(part)]


def times_seen(order: MixtureOrder, epochs: range) -> Counter[int]:
    return Counter(row for epoch in epochs for row in epoch_rows(order, epoch))


MANY = [
    order_of(([12_000, 9_000, 300], 1.0), ([800], 3.0), ([11_000], 0.5)),
    order_of(([5, 1, 9], 2.5), ([4], 0.3), num_bytes=WINDOW_BYTES // 2),
    order_of(([3], 1.0)),
]


class TestWeights:
    def test_whole_weights_are_how_often_each_row_is_met(self) -> None:
        order = order_of(([5, 3], 1.0), ([4], 3.0))
        assert (order.num_rows, order.portion_rows) == (20, (8, 12))
        for epoch in (1, 2, 3):
            assert times_seen(order, range(epoch, epoch + 1)) == {row: 1 if row < 8 else 3 for row in range(12)}

    @pytest.mark.parametrize("sizes", [[10], [3, 4, 3], [1] * 10])
    def test_fractions_choose_without_replacement_over_epochs(self, sizes: list[int]) -> None:
        order = order_of((sizes, 0.5), ([2], 1.0))
        assert order.portion_rows == (5, 2)
        seen = times_seen(order, range(1, 3))
        assert all(seen[row] == 2 for row in (10, 11))
        assert all(seen[row] == 1 for row in range(10))
        first = times_seen(order, range(1, 2))
        assert max(first.values()) == 1
        assert sum(first[row] for row in range(10)) == 5

    def test_two_and_a_half_is_two_passes_and_a_choice(self) -> None:
        order = order_of(([10], 2.5))
        assert order.num_rows == 25
        assert sorted(times_seen(order, range(1, 2)).values()) == [2] * 5 + [3] * 5
        assert set(times_seen(order, range(1, 3)).values()) == {5}

    def test_choices_of_groups_add_up_to_the_share_of_the_dataset(self) -> None:
        order = order_of(([7] * 9, 0.1))
        assert order.num_rows == round(63 * 0.1)
        assert set(times_seen(order, range(1, 22)).values()) == {2}  # 21 epochs of 6 rows

    @pytest.mark.parametrize("weight", [0.01, 0.3, 1 / 3, 0.5, 0.7, 0.99, 1.1, 2.75])
    def test_no_row_is_met_twice_more_than_another(self, weight: float) -> None:
        order = order_of(([40, 3, 1, 17], weight), excluded=np.array([2, 41, 60], dtype=np.int64))
        for num_epochs in range(1, 15):
            seen = times_seen(order, range(1, num_epochs + 1))
            counts = [seen[row] for row in range(61) if row not in (2, 41, 60)]
            assert max(counts) - min(counts) <= 1
            assert sum(counts) == num_epochs * order.num_rows

    def test_the_smallest_weight_is_one_row(self) -> None:
        order = order_of(([10], 0.001), ([10], 1.0))
        assert order.portion_rows == (1, 10)
        assert len(times_seen(order, range(1, 11))) == 20  # another one in each epoch

    def test_seeds_choose_other_rows(self) -> None:
        chosen = {tuple(sorted(epoch_rows(order_of(([100], 0.2), seed=seed), 1))) for seed in range(5)}
        assert len(chosen) == 5


@pytest.mark.parametrize("order", MANY)
class TestOrder:
    def test_is_the_same_each_time_and_another_in_each_epoch(self, order: MixtureOrder) -> None:
        again = MixtureOrder(order.portions, order.seed, order.excluded)
        assert epoch_rows(order, 1) == epoch_rows(again, 1)
        if order.num_rows > 3:
            assert epoch_rows(order, 1) != epoch_rows(order, 2)

    def test_every_epoch_has_as_many_rows(self, order: MixtureOrder) -> None:
        for epoch in (1, 2, 5):
            assert len(epoch_rows(order, epoch)) == order.num_rows

    def test_goes_on_from_any_position(self, order: MixtureOrder) -> None:
        whole = epoch_rows(order, 2)
        for position in (0, 1, len(whole) // 3, len(whole) - 1, len(whole)):
            assert epoch_rows(order, 2, position) == whole[position:]

    def test_positions_of_parts_follow_each_other(self, order: MixtureOrder) -> None:
        position = 0
        for part in order.parts(1):
            assert part.first_position == position
            position += part.stop - part.start
        assert position == order.num_rows

    def test_rows_are_those_of_the_part_s_groups(self, order: MixtureOrder) -> None:
        groups = [group for portion in order.portions for group in portion.groups]
        for part in order.parts(1):
            own = [groups[number] for number in order.groups_of(part)]
            assert all(any(g.first_row <= row < g.first_row + g.num_rows for g in own) for row in order.rows(part)[:9])

    def test_counts_what_was_seen_so_far(self, order: MixtureOrder) -> None:
        firsts = [portion.groups[0].first_row for portion in order.portions]
        rows = epoch_rows(order, 3)
        for num_more in (0, 1, len(rows) // 2, len(rows)):
            places = np.searchsorted(firsts, rows[:num_more], side="right") - 1
            counted = np.bincount(places, minlength=len(firsts)) if num_more else np.zeros(len(firsts), dtype=int)
            expected = [2 * each + int(more) for each, more in zip(order.portion_rows, counted, strict=True)]
            assert list(order.seen_rows(2, num_more)) == expected


class TestMixing:
    def test_a_small_dataset_is_spread_over_the_whole_epoch(self) -> None:
        order = order_of(([20_000] * 5, 1.0), ([1_000], 1.0))
        is_small = np.array(epoch_rows(order, 1)) >= 100_000
        counts = is_small[: len(is_small) // 10 * 10].reshape(10, -1).sum(axis=1)
        assert counts.min() >= 80
        assert counts.max() <= 120

    def test_windows_are_small_where_rows_are_large(self) -> None:
        order = order_of(([10] * 8, 1.0), ([10], 1.0), num_bytes=WINDOW_BYTES)
        windows = {part.window: order.groups_of(part) for part in order.parts(1)}
        assert len(windows) == 9
        assert all(len(groups) <= 4 for groups in windows.values())

    def test_rows_that_are_left_out_never_come(self) -> None:
        excluded = np.array([0, 3, 7, 9, 12], dtype=np.int64)
        order = order_of(([5, 5], 1.5), ([4], 0.5), excluded=excluded)
        assert order.portion_rows == (9, 2)
        assert not set(times_seen(order, range(1, 20))) & set(excluded.tolist())

    def test_a_group_that_is_left_out_as_a_whole_is_passed_over(self) -> None:
        order = order_of(([2, 5], 1.0), ([3], 1.0), excluded=np.array([0, 1], dtype=np.int64))
        assert sorted(epoch_rows(order, 1)) == list(range(2, 10))
