"""The progress of a run as lines of its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sienn_ray.training.reporting import Progress, Reporter, RunCommand

logger = logging.getLogger(__name__)

# A run of hours has some hundred lines.
_INTERVAL_S = 10.0


class ProgressLog:
    """A reporter that logs what it passes on: losses now and then, evaluations and ends of epochs always.

    Args:
        reporter: Who is told.
        interval_s: Shortest time between two lines about steps.
        clock: Seconds from any fixed point.
    """

    def __init__(
        self, reporter: Reporter, *, interval_s: float = _INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reporter = reporter
        self._interval_s = interval_s
        self._clock = clock
        self._last = float("-inf")

    def report(self, progress: Progress) -> None:
        """Log, and pass on."""
        if progress.warning is not None:
            logger.warning("%s", progress.warning)
        elif progress.eval_loss is not None or progress.epoch_loss is not None:
            logger.info("%s", progress.message)
        elif progress.current_loss is not None and self._is_due(progress):
            logger.info("%s", _line_of(progress))
        self._reporter.report(progress)

    def command(self) -> RunCommand:
        """See `Reporter.command`."""
        return self._reporter.command()

    def is_awaited(self) -> bool:
        """See `Reporter.is_awaited`."""
        return self._reporter.is_awaited()

    def _is_due(self, progress: Progress) -> bool:
        now = self._clock()
        if now - self._last < self._interval_s and progress.current_step != progress.total_steps:
            return False
        self._last = now
        return True


def _line_of(progress: Progress) -> str:
    left = progress.time_left_s
    facts = [
        f"loss {progress.current_loss:.4f}",
        f"reward margin {progress.rewards_margins:.4f}" if progress.rewards_margins is not None else "",
        f"chosen over rejected {progress.rewards_accuracies:.0%}" if progress.rewards_accuracies is not None else "",
        f"learning rate {progress.learning_rate:.3g}" if progress.learning_rate is not None else "",
        f"{progress.tokens_per_s:.0f} tokens/s" if progress.tokens_per_s else "",
        f"{int(left) // 60}:{int(left) % 60:02d} left" if left else "",
    ]
    place = (
        f"epoch {progress.current_epoch}/{progress.total_epochs}, step {progress.current_step}/{progress.total_steps}"
    )
    return f"{place}: {', '.join(fact for fact in facts if fact)}"
