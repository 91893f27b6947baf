"""The failures that a run may have without progress between them."""

from __future__ import annotations


class FailureBudget:
    """Counts the failures of a run's workers since its last checkpoint.

    Args:
        max_failures: Failures in a row, without a newer checkpoint between them, that the run survives.
    """

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._checkpoint: str | None = None
        self.num_failures = 0

    def allows_another(self, checkpoint: str | None) -> bool:
        """Count a failure; returns whether the run may go on.

        Args:
            checkpoint: Name of the newest checkpoint, if there is one; names rise.
        """
        if checkpoint is not None and (self._checkpoint is None or checkpoint > self._checkpoint):
            self.num_failures = 0
        self._checkpoint = checkpoint
        self.num_failures += 1
        return self.num_failures <= self._max_failures
