from __future__ import annotations

from pathlib import Path

from sienn_ray.training.signs_of_life import ActivityWatch, process_activity, signs_of_life


def test_process_that_is_active_says_so_and_one_that_waits_does_not() -> None:
    told: list[str] = []
    numbers = iter([100.0, 106.0, 107.0, 112.9, 400.0])
    watch = ActivityWatch(lambda: told.append("alive"), lambda: next(numbers))
    counts = []
    for _ in range(4):
        watch.look()
        counts.append(len(told))
    assert counts == [1, 1, 1, 2]


def test_activity_rises() -> None:
    before = process_activity()
    Path(__file__).read_bytes()
    assert process_activity() > before


def test_thread_ends_with_the_block() -> None:
    with signs_of_life(lambda: None, interval_s=1e-4):
        pass
