from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from sienn_ray.errors import ArtifactError, CapacityError, EngineError
from sienn_ray.inference.requests.adapter_cache import AdapterCache

WAIT_S = 30.0


@dataclass(frozen=True)
class Adapter:
    """Stands for one in memory."""

    name: str
    size_bytes: int


class Memory:
    """What is loaded."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes_bytes: dict[str, int] = {}

    def load(self, key: str) -> Adapter:
        if key == "altered":
            raise ArtifactError("altered")
        self.names.append(key)
        return Adapter(key, self.sizes_bytes.get(key, 10))

    def unload(self, adapter: Adapter) -> None:
        self.names.remove(adapter.name)


@pytest.fixture
def memory() -> Memory:
    """Memory with no adapter."""
    return Memory()


def cache_of(
    memory: Memory,
    load: Callable[[str], Adapter] | None = None,
    *,
    max_count: int = 3,
    max_bytes: int = 1000,
    load_timeout_s: float = WAIT_S,
    room_timeout_s: float = WAIT_S,
) -> AdapterCache[Adapter]:
    return AdapterCache(
        load or memory.load,
        memory.unload,
        max_count=max_count,
        max_bytes=max_bytes,
        load_timeout_s=load_timeout_s,
        room_timeout_s=room_timeout_s,
    )


def fill(cache: AdapterCache[Adapter], memory: Memory, **sizes_bytes: int) -> None:
    """Use each adapter once, one after the other."""
    memory.sizes_bytes |= sizes_bytes
    for name in sizes_bytes:
        cache.take(name, name)
        cache.give_back(name)


def is_loaded(cache: AdapterCache[Adapter], name: str) -> bool:
    found = cache.take_loaded(name)
    if found is not None:
        cache.give_back(name)
    return found is not None


def wait_for_loads() -> None:
    """Wait until all threads of loads have ended."""
    for thread in [each for each in threading.enumerate() if each.name == "load-adapter"]:
        thread.join(WAIT_S)


def test_a_loaded_adapter_is_found_again(memory: Memory) -> None:
    cache = cache_of(memory)
    assert cache.take_loaded("a") is None
    adapter = cache.take("a", "a")
    assert cache.take_loaded("a") is adapter
    assert cache.take("a", "a") is adapter
    assert (len(cache), cache.size_bytes, cache.num_loads) == (1, 10, 1)


@pytest.mark.parametrize(
    ("used", "kept"),
    [
        ([], ["b", "c", "d"]),
        (["a"], ["a", "c", "d"]),
        (["a", "b"], ["a", "b", "d"]),
        (["c", "b", "a"], ["a", "b", "d"]),
    ],
)
def test_least_recently_used_goes_first(memory: Memory, used: list[str], kept: list[str]) -> None:
    cache = cache_of(memory, max_count=3)
    fill(cache, memory, a=1, b=1, c=1)
    fill(cache, memory, **dict.fromkeys(used, 1))
    fill(cache, memory, d=1)
    assert sorted(memory.names) == kept
    assert [name for name in "abcd" if is_loaded(cache, name)] == kept


@pytest.mark.parametrize(
    ("new_bytes", "kept"), [(10, ["a", "b", "new"]), (11, ["b", "new"]), (50, ["b", "new"]), (51, ["new"])]
)
def test_bytes_are_bounded_too(memory: Memory, new_bytes: int, kept: list[str]) -> None:
    cache = cache_of(memory, max_count=9, max_bytes=100)
    fill(cache, memory, a=40, b=50, new=new_bytes)
    assert memory.names == kept
    assert cache.size_bytes <= 100


def test_adapter_of_exactly_the_limit_fits(memory: Memory) -> None:
    cache = cache_of(memory, max_bytes=100)
    fill(cache, memory, a=1, b=100)
    assert memory.names == ["b"]


def test_adapter_over_the_limit_costs_no_other_its_place(memory: Memory) -> None:
    cache = cache_of(memory, max_bytes=100)
    fill(cache, memory, a=40, b=50)
    with pytest.raises(EngineError, match=r"adapter big takes 101 bytes, .* 100 \(SIENN_ADAPTER_CACHE_MAX_BYTES\)"):
        fill(cache, memory, big=101)
    assert memory.names == ["a", "b"]
    assert [name for name in ("a", "b", "big") if is_loaded(cache, name)] == ["a", "b"]


def test_failed_load_changes_nothing(memory: Memory) -> None:
    cache = cache_of(memory, max_count=2)
    fill(cache, memory, a=1, b=1)
    for _ in range(2):
        with pytest.raises(ArtifactError):
            cache.take("c", "altered")
    assert memory.names == ["a", "b"]
    assert (len(cache), cache.num_loads) == (2, 2)
    fill(cache, memory, c=1)
    assert memory.names == ["b", "c"]


def test_adapters_in_use_stay(memory: Memory) -> None:
    cache = cache_of(memory, max_count=2)
    cache.take("a", "a")
    fill(cache, memory, b=1, c=1)
    assert memory.names == ["a", "c"]


def test_a_load_waits_until_there_is_room(memory: Memory) -> None:
    cache = cache_of(memory, max_count=1)
    cache.take("a", "a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.take, "b", "b")
        assert not waiting.done()
        assert is_loaded(cache, "a")
        cache.give_back("a")
        assert waiting.result(WAIT_S).name == "b"
    assert memory.names == ["b"]


def test_one_load_serves_all_who_wait(memory: Memory) -> None:
    may_load = threading.Event()

    def load(key: str) -> Adapter:
        assert may_load.wait(WAIT_S)
        return memory.load(key)

    cache = cache_of(memory, load, max_count=2, max_bytes=100)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.take, "a", "a") for _ in range(8)]
        may_load.set()
        assert {id(each.result(WAIT_S)) for each in waiting} == {id(cache.take_loaded("a"))}
    assert cache.num_loads == 1


def test_those_who_wait_for_a_failed_load_try_for_themselves(memory: Memory) -> None:
    cache = cache_of(memory)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.take, "c", "altered") for _ in range(4)]
        assert all(isinstance(each.exception(WAIT_S), ArtifactError) for each in waiting)


def test_nobody_waits_for_room_for_ever(memory: Memory) -> None:
    cache = cache_of(memory, max_count=1, room_timeout_s=0.0)
    cache.take("a", "a")
    with pytest.raises(CapacityError, match=r"no room for adapter b within 0 s .*: 1 others are in use; .*_MAX_COUNT"):
        cache.take("b", "b")
    assert memory.names == ["a"]
    cache.give_back("a")
    assert cache.take("b", "b").name == "b"
    assert memory.names == ["b"]


def test_who_has_gone_waits_for_no_room(memory: Memory) -> None:
    cache = cache_of(memory, max_count=1)
    cache.take("a", "a")
    with pytest.raises(EngineError, match="was cancelled"):
        cache.take("b", "b", is_wanted=lambda: False)
    wait_for_loads()
    assert memory.names == ["a"]
    cache.give_back("a")
    assert cache.take("c", "c").name == "c"


def test_a_closed_cache_ends_all_waits(memory: Memory) -> None:
    cache = cache_of(memory, max_count=1)
    cache.take("a", "a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.take, "b", "b")
        cache.close()
        assert isinstance(waiting.exception(WAIT_S), CapacityError)
    wait_for_loads()
    assert memory.names == ["a"]


def test_one_without_a_place_is_unloaded_while_others_use_the_cache(memory: Memory) -> None:
    def unload(adapter: Adapter) -> None:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cache.take_loaded, "a").result(WAIT_S) is not None
        memory.unload(adapter)

    cache: AdapterCache[Adapter] = AdapterCache(
        memory.load, unload, max_count=1, max_bytes=1000, load_timeout_s=WAIT_S, room_timeout_s=0.0
    )
    cache.take("a", "a")
    with pytest.raises(CapacityError, match="no room"):
        cache.take("b", "b")
    assert memory.names == ["a"]


class Stall:
    """Storage that answers some keys only when it is told to."""

    def __init__(self, memory: Memory, *keys: str) -> None:
        self._memory = memory
        self.keys = set(keys)
        self.num_asked = 0
        self.go_on = threading.Event()

    def load(self, key: str) -> Adapter:
        if key in self.keys:
            self.num_asked += 1
            assert self.go_on.wait(WAIT_S)
        return self._memory.load(key)


@pytest.fixture
def stall(memory: Memory) -> Iterator[Stall]:
    stall = Stall(memory, *(f"stalled-{number}" for number in range(100)))
    yield stall
    stall.go_on.set()


def test_a_stalled_load_is_given_up_and_tried_again(
    memory: Memory, stall: Stall, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(memory, stall.load, load_timeout_s=0.0)
    with pytest.raises(CapacityError, match=r"stalled-1 wasn't loaded .* within 0 s \(SIENN_ADAPTER_LOAD_TIMEOUT_S\)"):
        cache.take("stalled-1", "stalled-1")
    assert "the load of stalled-1 has taken longer than 0 s and is given up" in caplog.text
    stall.keys.clear()
    cache = cache_of(memory, stall.load)
    assert cache.take("stalled-1", "stalled-1").name == "stalled-1"


def test_a_stalled_load_holds_up_no_other(memory: Memory, stall: Stall) -> None:
    cache = cache_of(memory, stall.load)
    cache.take("loaded", "loaded")
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.take, f"stalled-{number}", f"stalled-{number}") for number in (1, 2)]
        assert cache.take_loaded("loaded") is not None
        assert cache.take("other", "other").name == "other"
        assert not any(each.done() for each in waiting)
        stall.go_on.set()
        cache.give_back("other")
        assert {each.result(WAIT_S).name for each in waiting} == {"stalled-1", "stalled-2"}


def test_a_load_that_was_given_up_comes_too_late(memory: Memory, stall: Stall) -> None:
    cache = cache_of(memory, stall.load, load_timeout_s=0.0)
    with pytest.raises(CapacityError):
        cache.take("stalled-1", "stalled-1")
    stall.go_on.set()
    wait_for_loads()
    assert (len(cache), cache.num_loads) == (0, 0)
    assert memory.names == []


def test_threads_that_hang_are_bounded(memory: Memory, stall: Stall) -> None:
    cache = cache_of(memory, stall.load, load_timeout_s=0.0)
    for number in range(32):
        with pytest.raises(CapacityError, match="wasn't loaded"):
            cache.take(f"stalled-{number}", f"stalled-{number}")
    with pytest.raises(CapacityError, match="storage doesn't answer: 32 loads of adapters hang"):
        cache.take("stalled-99", "stalled-99")
    assert stall.num_asked == 32
