"""An LRU cache of loaded adapters, bounded in number and bytes, whose loads can be given up."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sienn_ray.errors import CapacityError, EngineError

logger = logging.getLogger(__name__)

# Loads at a time. One that storage doesn't answer takes a place until its deadline, so there are more than CPUs.
_MAX_LOADS = 8
# Loads that were given up and whose threads still wait for storage; nothing can end these.
_MAX_HANGING = 32
# Seconds between two looks at whether a caller still waits.
_LOOK_S = 0.1


class Sized(Protocol):
    """An object with a size in memory."""

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        ...


_Adapter = TypeVar("_Adapter", bound=Sized)


class _Load:
    """One load, in a thread of its own, and those who wait for it."""

    def __init__(self, adapter_id: str, key: str, timeout_s: float) -> None:
        self.adapter_id = adapter_id
        self.key = key
        self.deadline = time.monotonic() + timeout_s
        self.num_waiting = 0
        self.is_fetched = False
        self.is_given_up = False
        self.is_over = False
        self.error: BaseException | None = None

    @property
    def is_overdue(self) -> bool:
        return not self.is_over and not self.is_fetched and time.monotonic() >= self.deadline


class AdapterCache(Generic[_Adapter]):
    """LRU cache of loaded adapters, for many threads.

    An adapter in use is never evicted, and one load serves all threads that wait for it. Each load has a thread of its
    own, so that one that storage doesn't answer is given up at its deadline, and holds up no other adapter.

    Args:
        load: Loads the adapter of a storage key.
        unload: Gets each adapter that is evicted, or that was loaded and got no place.
        max_count: Adapters to keep.
        max_bytes: Bytes of adapters to keep.
        load_timeout_s: Longest time of one load.
        room_timeout_s: Longest wait of an adapter that is loaded for room, while all others are in use.
    """

    def __init__(
        self,
        load: Callable[[str], _Adapter],
        unload: Callable[[_Adapter], None],
        *,
        max_count: int,
        max_bytes: int,
        load_timeout_s: float,
        room_timeout_s: float,
    ) -> None:
        self._load = load
        self._unload = unload
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._load_timeout_s = load_timeout_s
        self._room_timeout_s = room_timeout_s
        self._adapters: OrderedDict[str, _Adapter] = OrderedDict()
        self._num_users: dict[str, int] = {}
        self._loads: dict[str, _Load] = {}
        self._num_hanging = 0
        self._is_closed = False
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

    def take(self, adapter_id: str, key: str, is_wanted: Callable[[], bool] = lambda: True) -> _Adapter:
        """Return an adapter, in use until `give_back`; loads it, or waits for another thread's load, or for room.

        An adapter is loaded before others are evicted for it, so one that can't be loaded evicts none.

        Args:
            adapter_id: The adapter's id.
            key: Its storage key.
            is_wanted: Asked now and then; once it is False, the wait ends.

        Raises:
            SiennError: The adapter can't be loaded, or is alone over the limit, or isn't wanted any more.
            CapacityError: Storage didn't answer in time, or there was no room in time.
        """
        with self._changed:
            latest = time.monotonic() + self._load_timeout_s
            while adapter_id not in self._adapters:
                load = self._loads.get(adapter_id)
                if load is not None and load.is_overdue:
                    self._give_up(load)
                    load = None
                if load is None and len(self._loads) < _MAX_LOADS:
                    load = self._begin(adapter_id, key)
                if load is not None:
                    return self._awaited(load, is_wanted)
                self._look(is_wanted)
                for other in [each for each in self._loads.values() if each.is_overdue]:
                    self._give_up(other)
                if time.monotonic() >= latest:
                    raise self._too_slow(adapter_id)
            return self._taken(adapter_id)

    def give_back(self, adapter_id: str) -> None:
        """End one use of an adapter."""
        with self._changed:
            self._num_users[adapter_id] -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all waits for adapters."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    # All below hold the lock, but for those that a load's thread calls: `_run`, `_place`, `_note_failure`.

    def _look(self, is_wanted: Callable[[], bool]) -> None:
        """Wait for a moment, unless nobody needs the result."""
        if self._is_closed:
            raise CapacityError("the engine is stopping; try again in a moment")
        if not is_wanted():
            raise EngineError("the request was cancelled")
        self._changed.wait(_LOOK_S)

    def _begin(self, adapter_id: str, key: str) -> _Load:
        if self._num_hanging >= _MAX_HANGING:
            raise CapacityError(f"storage doesn't answer: {self._num_hanging} loads of adapters hang; try again later")
        load = self._loads[adapter_id] = _Load(adapter_id, key, self._load_timeout_s)
        threading.Thread(target=self._run, args=(load,), name="load-adapter", daemon=True).start()
        return load

    def _awaited(self, load: _Load, is_wanted: Callable[[], bool]) -> _Adapter:
        load.num_waiting += 1
        try:
            while not load.is_over:
                if load.is_overdue:
                    self._give_up(load)
                else:
                    self._look(is_wanted)
        finally:
            load.num_waiting -= 1
        if load.error is not None:
            raise load.error
        return self._adapters[load.adapter_id]  # in use since it was loaded

    def _give_up(self, load: _Load) -> None:
        logger.error("the load of %s has taken longer than %g s and is given up", load.key, self._load_timeout_s)
        load.is_given_up = True
        self._num_hanging += 1
        self._end(load, self._too_slow(load.adapter_id))

    def _too_slow(self, adapter_id: str) -> CapacityError:
        return CapacityError(
            f"adapter {adapter_id} wasn't loaded from storage within {self._load_timeout_s:g} s "
            "(SIENN_ADAPTER_LOAD_TIMEOUT_S); try again in a moment"
        )

    def _end(self, load: _Load, error: BaseException | None = None) -> None:
        load.is_over, load.error = True, error
        del self._loads[load.adapter_id]
        self._changed.notify_all()

    def _run(self, load: _Load) -> None:
        """The thread of one load; an adapter that gets no place is unloaded, since loading it may have had effects."""
        adapter, error = None, None
        try:
            adapter = self._load(load.key)
            self._check_size(load.adapter_id, adapter)
            self._place(load, adapter)
        except BaseException as caught:  # whatever it is, those who wait have to hear of it
            error = caught
        if error is None:
            return
        try:
            if adapter is not None:
                self._unload(adapter)
        finally:
            self._note_failure(load, error)

    def _note_failure(self, load: _Load, error: BaseException) -> None:
        with self._changed:
            if load.is_given_up:
                self._num_hanging -= 1
            else:
                self._end(load, error)

    def _place(self, load: _Load, adapter: _Adapter) -> None:
        """Wait for room, and have all who wait use the adapter."""
        latest = time.monotonic() + self._room_timeout_s
        with self._changed:
            if load.is_given_up:
                raise self._too_slow(load.adapter_id)
            self.num_loads += 1
            load.is_fetched = True
            while not self._evict_for(adapter.size_bytes):
                if self._is_closed or not load.num_waiting or time.monotonic() >= latest:
                    raise self._no_room(load.adapter_id)
                self._changed.wait(_LOOK_S)
            self._adapters[load.adapter_id] = adapter
            self._num_users[load.adapter_id] = load.num_waiting
            self._end(load)

    def _no_room(self, adapter_id: str) -> CapacityError:
        return CapacityError(
            f"no room for adapter {adapter_id} within {self._room_timeout_s:g} s (SIENN_ENGINE_QUEUE_TIMEOUT_S): "
            f"{len(self._adapters)} others are in use; try again later, or raise SIENN_ADAPTER_CACHE_MAX_COUNT or "
            "SIENN_ADAPTER_CACHE_MAX_BYTES"
        )

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
