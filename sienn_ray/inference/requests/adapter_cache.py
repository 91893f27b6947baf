"""An LRU cache of loaded adapters, bounded in number and bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sienn_ray.errors import EngineError


class Sized(Protocol):
    """An object with a size in memory."""

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        ...


_Adapter = TypeVar("_Adapter", bound=Sized)


class AdapterCache(Generic[_Adapter]):
    """LRU cache of loaded adapters, for many threads.

    An adapter in use is never evicted, and one load serves all threads that wait for it.

    Args:
        load: Loads the adapter of a storage key.
        unload: Gets each adapter that is evicted.
        max_count: Adapters to keep.
        max_bytes: Bytes of adapters to keep.
    """

    def __init__(
        self,
        load: Callable[[str], _Adapter],
        unload: Callable[[_Adapter], None],
        *,
        max_count: int,
        max_bytes: int,
    ) -> None:
        self._load = load
        self._unload = unload
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[str, _Adapter] = OrderedDict()
        self._num_users: dict[str, int] = {}
        self._loading: set[str] = set()
        self._changed = threading.Condition()
        self.num_loads = 0

    def __len__(self) -> int:
        with self._changed:
            return len(self._adapters)

    @property
    def size_bytes(self) -> int:
        """Bytes of all loaded adapters."""
        with self._changed:
            return self._size_bytes()

    def take_loaded(self, adapter_id: str) -> _Adapter | None:
        """Return an adapter, in use until `give_back`, or None where it isn't loaded."""
        with self._changed:
            return self._taken(adapter_id) if adapter_id in self._adapters else None

    def take(self, adapter_id: str, key: str) -> _Adapter:
        """Return an adapter, in use until `give_back`; loads it, or waits for another thread's load, or for room.

        An adapter is loaded before others are evicted for it, so one that can't be loaded evicts none.

        Raises:
            SiennError: The adapter can't be loaded, or is alone over the limit.
        """
        with self._changed:
            self._changed.wait_for(lambda: adapter_id not in self._loading)
            if adapter_id in self._adapters:
                return self._taken(adapter_id)
            self._loading.add(adapter_id)
        try:
            adapter = self._load(key)
            self._check_size(adapter_id, adapter)
            with self._changed:
                self.num_loads += 1
                self._changed.wait_for(lambda: self._evict_for(adapter.size_bytes))
                self._adapters[adapter_id] = adapter
                return self._taken(adapter_id)
        finally:
            with self._changed:
                self._loading.discard(adapter_id)
                self._changed.notify_all()

    def give_back(self, adapter_id: str) -> None:
        """End one use of an adapter."""
        with self._changed:
            self._num_users[adapter_id] -= 1
            self._changed.notify_all()

    def _taken(self, adapter_id: str) -> _Adapter:
        self._adapters.move_to_end(adapter_id)
        self._num_users[adapter_id] = self._num_users.get(adapter_id, 0) + 1
        return self._adapters[adapter_id]

    def _size_bytes(self) -> int:
        return sum(adapter.size_bytes for adapter in self._adapters.values())

    def _check_size(self, adapter_id: str, adapter: _Adapter) -> None:
        if adapter.size_bytes > self._max_bytes:
            raise EngineError(
                f"adapter {adapter_id} takes {adapter.size_bytes} bytes, more than the cache's {self._max_bytes} "
                "(SIENN_ADAPTER_CACHE_MAX_BYTES); raise the limit"
            )

    def _evict_for(self, num_bytes: int) -> bool:
        """Evict adapters that aren't in use until one of `num_bytes` fits; return whether it does."""
        for adapter_id in [each for each in self._adapters if not self._num_users[each]]:
            if self._fits(num_bytes):
                break
            del self._num_users[adapter_id]
            self._unload(self._adapters.pop(adapter_id))
        return self._fits(num_bytes)

    def _fits(self, num_bytes: int) -> bool:
        return len(self._adapters) < self._max_count and self._size_bytes() + num_bytes <= self._max_bytes
