from __future__ import annotations

from collections.abc import Callable

import pytest

from sienn_ray.errors import ArtifactError, EngineError
from sienn_ray.inference.adapter_cache import AdapterCache, LoadedAdapter


class Memory:
    """What is loaded, as the model would know it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def loader(self, name: str, size_bytes: int = 10) -> Callable[[], LoadedAdapter]:
        def load() -> LoadedAdapter:
            self.names.append(name)
            return LoadedAdapter(name, size_bytes)

        return load

    def unload(self, adapter: LoadedAdapter) -> None:
        self.names.remove(adapter.name)


@pytest.fixture
def memory() -> Memory:
    """Memory with no adapter."""
    return Memory()


def cache_of(memory: Memory, *, max_count: int = 3, max_bytes: int = 1000) -> AdapterCache:
    return AdapterCache(memory.unload, max_count=max_count, max_bytes=max_bytes)


def fill(cache: AdapterCache, memory: Memory, **sizes_bytes: int) -> None:
    for name, size_bytes in sizes_bytes.items():
        cache.add(name, memory.loader(name, size_bytes))


def test_added_adapter_is_found_again(memory: Memory) -> None:
    cache = cache_of(memory)
    assert cache.get("a") is None
    adapter = cache.add("a", memory.loader("a", 10))
    assert cache.get("a") is adapter
    assert (len(cache), cache.size_bytes, cache.num_loads) == (1, 10, 1)


def test_asking_loads_nothing(memory: Memory) -> None:
    cache = cache_of(memory)
    fill(cache, memory, a=10)
    for _ in range(3):
        cache.get("a")
        cache.get("missing")
    assert cache.num_loads == 1
    assert memory.names == ["a"]


@pytest.mark.parametrize(
    ("used", "kept"),
    [
        ([], ["b", "c", "d"]),
        (["a"], ["a", "c", "d"]),
        (["a", "b"], ["a", "b", "d"]),
        (["c", "b", "a", "missing"], ["a", "b", "d"]),
    ],
)
def test_least_recently_used_goes_first(memory: Memory, used: list[str], kept: list[str]) -> None:
    cache = cache_of(memory, max_count=3)
    fill(cache, memory, a=1, b=1, c=1)
    for name in used:
        cache.get(name)
    fill(cache, memory, d=1)
    assert sorted(memory.names) == kept
    assert [name for name in "abcd" if cache.get(name)] == kept


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


def test_adapter_over_the_limit_is_freed_and_costs_no_other_its_place(memory: Memory) -> None:
    cache = cache_of(memory, max_bytes=100)
    fill(cache, memory, a=40, b=50)
    with pytest.raises(EngineError, match=r"adapter big takes 101 bytes, .* 100 \(SIENN_ADAPTER_CACHE_MAX_BYTES\)"):
        cache.add("big", memory.loader("big", 101))
    assert memory.names == ["a", "b"]
    assert cache.get("big") is None


def test_failed_load_changes_nothing(memory: Memory) -> None:
    cache = cache_of(memory, max_count=2)
    fill(cache, memory, a=1, b=1)

    def load() -> LoadedAdapter:
        raise ArtifactError("altered")

    with pytest.raises(ArtifactError):
        cache.add("c", load)
    assert memory.names == ["a", "b"]
    assert (len(cache), cache.num_loads) == (2, 2)
    fill(cache, memory, c=1)
    assert memory.names == ["b", "c"]


def test_evicted_adapter_is_loaded_anew(memory: Memory) -> None:
    cache = cache_of(memory, max_count=1)
    fill(cache, memory, a=1, b=1)
    assert cache.get("a") is None
    fill(cache, memory, a=1)
    assert memory.names == ["a"]
    assert cache.num_loads == 3
