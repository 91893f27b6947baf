"""The pieces of one answer between the engine that makes them and the stream that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sienn_ray.inference.engine import GenerationDelta

# Pieces a second for each CPU that an engine computes with, of all its streams together. A piece takes some 7 ms of an
# engine on two CPUs: what other processes take of one CPU, the other one waits for.
_PIECES_PER_CPU_S = 6.0


class Pace:
    """The rate at which the streams of an engine have pieces: together so low that computing isn't held up.

    Args:
        interval_s: Seconds between two pieces of each stream at the least; None has the CPUs decide.
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
        return 0.0 if self._num_cpus is None else self._num_streams / (_PIECES_PER_CPU_S * self._num_cpus)


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


def _joined(deltas: Sequence[GenerationDelta]) -> GenerationDelta:
    if len(deltas) == 1:
        return deltas[0]
    return GenerationDelta(
        text="".join(delta.text for delta in deltas),
        logprobs=tuple(each for delta in deltas for each in delta.logprobs),
        result=deltas[-1].result,
        error=deltas[-1].error,
    )
