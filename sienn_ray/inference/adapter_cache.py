"""Which adapters stay loaded: least recently used ones go first, bounded in number and bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sienn_ray.errors import EngineError


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter in memory, under the name by which the model knows it."""

    name: str
    size_bytes: int


class AdapterCache:
    """LRU of loaded adapters; not thread-safe, since adapters are chosen under the engine's lock.

    Args:
        unload: Frees an adapter.
        max_count: Adapters to keep.
        max_bytes: Bytes of adapters to keep.
    """

    def __init__(self, unload: Callable[[LoadedAdapter], None], *, max_count: int, max_bytes: int) -> None:
        self._unload = unload
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[str, LoadedAdapter] = OrderedDict()
        self.num_loads = 0

    def __len__(self) -> int:
        return len(self._adapters)

    @property
    def size_bytes(self) -> int:
        """Bytes of all loaded adapters."""
        return sum(adapter.size_bytes for adapter in self._adapters.values())

    def get(self, adapter_id: str) -> LoadedAdapter | None:
        """A loaded adapter, which counts as used now, or None."""
        if adapter_id in self._adapters:
            self._adapters.move_to_end(adapter_id)
        return self._adapters.get(adapter_id)

    def add(self, adapter_id: str, load: Callable[[], LoadedAdapter]) -> LoadedAdapter:
        """Load an adapter, then make room. In this order, an adapter that can't be loaded costs no other its place.

        Raises:
            EngineError: The adapter alone is over the limit.
        """
        adapter = load()
        self.num_loads += 1
        if adapter.size_bytes > self._max_bytes:
            self._unload(adapter)
            raise EngineError(
                f"adapter {adapter_id} takes {adapter.size_bytes} bytes, more than the cache's {self._max_bytes} "
                "(SIENN_ADAPTER_CACHE_MAX_BYTES); raise the limit"
            )
        self._adapters[adapter_id] = adapter
        while len(self._adapters) > self._max_count or self.size_bytes > self._max_bytes:
            self._unload(self._adapters.popitem(last=False)[1])
        return adapter
