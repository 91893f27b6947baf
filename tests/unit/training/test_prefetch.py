from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from sienn_ray.training.prefetch import Prefetched

TIMEOUT_S = 10.0


class Source:
    """Counts up, and tells how far it is.

    Args:
        end: What it fails at, instead of an end.
    """

    def __init__(self, end: int | None = None) -> None:
        self._end = end
        self._asked = threading.Condition()
        self.num_asked = 0
        self.is_closed = threading.Event()

    def __iter__(self) -> Iterator[int]:
        try:
            for number in itertools.count():
                with self._asked:
                    self.num_asked += 1
                    self._asked.notify_all()
                if number == self._end:
                    raise ValueError(f"{number} is too far")
                yield number
        finally:
            self.is_closed.set()

    def wait_until_asked(self, times: int) -> bool:
        with self._asked:
            return self._asked.wait_for(lambda: self.num_asked >= times, TIMEOUT_S)

    def is_asked_more_than(self, times: int) -> bool:
        with self._asked:
            return self._asked.wait_for(lambda: self.num_asked > times, 0.3)


def test_elements_come_in_order_and_then_the_end() -> None:
    with Prefetched(range(100), depth=3) as elements:
        assert list(elements) == list(range(100))


def test_the_end_repeats() -> None:
    with Prefetched([1]) as elements:
        assert next(elements) == 1
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(elements)


def test_none_is_an_element() -> None:
    with Prefetched([None, None]) as elements:
        assert list(elements) == [None, None]


def test_an_error_comes_out_behind_what_came_before_it_and_then_the_end() -> None:
    with Prefetched(Source(end=3)) as elements:
        assert [next(elements) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="3 is too far"):
            next(elements)
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(elements)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_it_runs_ahead_by_depth_and_the_one_in_hand(depth: int) -> None:
    source = Source()
    with Prefetched(source, depth) as elements:
        assert source.wait_until_asked(depth + 1)
        assert not source.is_asked_more_than(depth + 1)
        assert next(elements) == 0
        assert source.wait_until_asked(depth + 2)
        assert not source.is_asked_more_than(depth + 2)


def test_closing_ends_the_thread_while_the_source_goes_on() -> None:
    source = Source()
    elements = Prefetched(source)
    assert next(elements) == 0
    elements.close()
    elements._thread.join(TIMEOUT_S)
    assert not elements._thread.is_alive()
    assert source.num_asked < 20
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(elements)


def test_closing_twice_is_closing_once() -> None:
    with Prefetched(Source()) as elements:
        elements.close()
        elements.close()
    elements._thread.join(TIMEOUT_S)
    assert not elements._thread.is_alive()


def test_an_error_around_it_closes_it() -> None:
    with pytest.raises(KeyError), Prefetched(Source()) as elements:
        raise KeyError
    elements._thread.join(TIMEOUT_S)
    assert not elements._thread.is_alive()
