"""Take an iterator's next elements in a thread, while their taker is busy with something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Generic, TypeVar

from sienn_ray.compute_threads import compute_alone

_Element = TypeVar("_Element")
_LOOK_S = 0.2


class Prefetched(Iterator[_Element], AbstractContextManager["Prefetched[_Element]"], Generic[_Element]):
    """An iterator that runs ahead from the moment it is made; what it raises comes out where it is taken from.

    Args:
        source: What to iterate over, all of it in the thread.
        depth: Elements that may wait.
    """

    def __init__(self, source: Iterable[_Element], depth: int = 2) -> None:
        self._queue: Queue[tuple[_Element | None, BaseException | None]] = Queue(depth)
        self._is_closed = Event()
        self._thread = Thread(target=self._run, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def _run(self, source: Iterable[_Element]) -> None:
        compute_alone()  # its taker is the thread that computes
        try:
            for element in source:
                if not self._put((element, None)):
                    return
        except BaseException as error:
            self._put((None, error))
        else:
            self._put((None, StopIteration()))

    def _put(self, entry: tuple[_Element | None, BaseException | None]) -> bool:
        while not self._is_closed.is_set():
            try:
                self._queue.put(entry, timeout=_LOOK_S)
            except Full:
                continue
            return True
        return False

    def __next__(self) -> _Element:
        if self._is_closed.is_set():  # what the thread had in hand may still get into the queue
            raise StopIteration
        element, error = self._queue.get()
        if error is not None:
            self._is_closed.set()
            raise error
        return element  # type: ignore[return-value]

    def close(self) -> None:
        """Stop running ahead; the thread ends at its next element."""
        self._is_closed.set()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        with suppress(Full):  # then whoever waits has got something
            self._queue.put_nowait((None, StopIteration()))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
