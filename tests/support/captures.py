"""Stand-ins for CUDA graphs on a CPU."""

from __future__ import annotations

from collections.abc import Callable


def no_capture(work: Callable[[], object]) -> Callable[[], None]:
    """Record nothing; a replay is the work itself, done again on the memory that it read before."""

    def replay() -> None:
        work()

    return replay
