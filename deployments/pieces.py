"""The pieces of one answer between the engine that makes them and the stream that sends them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sienn_ray.inference.engine import GenerationDelta

# Pieces a second for each CPU that an engine computes with, of all its streams together. A piece takes some 7 ms of an
# engine on two CPUs: what other processes take of one CPU, the other one waits for.
_PIECES_PER_CPU_S = 6.0
# Pieces a second of an engine on GPUs. A piece costs the ingress half a millisecond of CPU, and the proxy and the
# engine's replica some 0.3 ms each, whatever it holds; so the streams of an engine take a third of one process.
_PIECES_PER_S = 500.0


class Pace:
    """The rate at which the streams of an engine have pieces: so low that neither computing nor a process is held up.

    Args:
        interval_s: Seconds between two pieces of each stream at the least; None shares out what pieces there are.
        num_cpus: CPUs that the engine computes with; None where others compute.
    """

    def __init__(self, interval_s: float | None, num_cpus: int | None) -> None:
        self._interval_s = interval_s
        self._num_cpus = num_cpus
        self._num_streams = 0

    @contextmanager
    def stream(self) -> Iterator[Callable[[], float]]:
        """Count a stream while it is open; yields a function that returns its present interval, in seconds."""
        self._num_streams += 1
        try:
            yield self._now_s
        finally:
            self._num_streams -= 1

    def _now_s(self) -> float:
        if self._interval_s is not None:
            return self._interval_s
        per_s = _PIECES_PER_S if self._num_cpus is None else _PIECES_PER_CPU_S * self._num_cpus
        return self._num_streams / per_s


def at_the_end() -> float:
    """The interval of an answer that is wanted whole."""
    return float("inf")


class Pieces:
    """The deltas that have come and aren't fetched yet; fetched as one piece.

    A piece costs three processes a millisecond each, whatever its length, so a stream that is behind its engine catches
    up at once, and one that isn't may have pieces held back to become fewer.

    Args:
        interval_s: Tells the seconds between two pieces at the least; neither the first nor the end of the answer
            waits.
    """

    def __init__(self, interval_s: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._waiting: list[GenerationDelta] = []
        self._has_come = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._due_at = 0.0

    def put(self, delta: GenerationDelta) -> None:
        """Add a delta from the engine."""
        self._waiting.append(delta)
        self._has_come.set()
        if delta.is_last:
            self._has_ended.set()

    async def next(self) -> GenerationDelta:
        """All that has come since the last one."""
        await self._has_come.wait()
        loop = asyncio.get_running_loop()
        early_s = self._due_at - loop.time()
        if early_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_ended.wait(), None if early_s == float("inf") else early_s)
        self._due_at = loop.time() + self._interval_s()
        come, self._waiting = self._waiting, []
        self._has_come.clear()
        return _joined(come)


class Deliveries:
    """Deltas on their way from an engine's thread to the event loop, which is woken once for all that come together.

    An engine's step has a delta for each of its requests, and to wake a loop is a system call.

    Args:
        loop: Runs where pieces are fetched.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Pieces, GenerationDelta]] = deque()
        self._is_woken = False

    def put(self, pieces: Pieces, delta: GenerationDelta) -> None:
        """Send a delta, from any thread.

        Raises:
            RuntimeError: The loop is closed.
        """
        self._waiting.append((pieces, delta))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # before the look, so that whatever comes behind it wakes the loop again
        while self._waiting:
            pieces, delta = self._waiting.popleft()
            pieces.put(delta)


def _joined(deltas: Sequence[GenerationDelta]) -> GenerationDelta:
    if len(deltas) == 1:
        return deltas[0]
    return GenerationDelta(
        text="".join(delta.text for delta in deltas),
        logprobs=tuple(each for delta in deltas for each in delta.logprobs),
        result=deltas[-1].result,
        error=deltas[-1].error,
        begins_in_reasoning=deltas[0].begins_in_reasoning,
    )
