from __future__ import annotations

from sienn_ray.inference.batching.fair_queue import FairQueue


def test_groups_take_turns() -> None:
    waiting: FairQueue[str] = FairQueue()
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        waiting.put(name[0], name)
    assert len(waiting) == 6
    assert [waiting.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_peek_is_what_pop_gives() -> None:
    waiting: FairQueue[int] = FairQueue()
    assert waiting.peek() is None
    waiting.put(None, 1)
    waiting.put("a", 2)
    assert waiting.peek() == waiting.pop() == 1
    assert waiting.peek() == 2


def test_those_that_need_not_wait_are_taken_out() -> None:
    waiting: FairQueue[int] = FairQueue()
    for number in range(6):
        waiting.put(str(number % 2), number)
    assert sorted(waiting.remove_if(lambda number: number in {0, 2, 4, 3})) == [0, 2, 3, 4]
    assert [waiting.pop(), waiting.pop()] == [1, 5]
    assert len(waiting) == 0
