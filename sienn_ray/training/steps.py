"""Optimizer steps from rows: over workers, and in micro batches whose gradients add up."""

from __future__ import annotations

from dataclasses import dataclass

from sienn_ray.training.config import TrainingConfig


@dataclass(frozen=True)
class StepPlan:
    """Rows of a step and of a micro batch. A step has the same rows on however many workers it is done.

    Args:
        batch_size: Rows that all workers together take at once.
        gradient_accumulation_steps: Times that they do so in one optimizer step.
        num_workers: Workers.
        num_rows: Rows of an epoch.
        num_epochs: Epochs.
    """

    batch_size: int
    gradient_accumulation_steps: int
    num_workers: int
    num_rows: int
    num_epochs: int

    @classmethod
    def of(cls, config: TrainingConfig, num_workers: int, num_rows: int) -> StepPlan:
        """The plan that a configuration asks for."""
        return cls(config.batch_size, config.gradient_accumulation_steps, num_workers, num_rows, config.num_epochs)

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step on all workers; the last step of an epoch may have fewer."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def micro_batch_rows(self) -> int:
        """Rows of one forward pass on one worker."""
        return max(1, -(-self.batch_size // self.num_workers))

    @property
    def max_rows_per_worker(self) -> int:
        """Rows of one optimizer step on the worker that has most."""
        return -(-self.rows_per_step // self.num_workers)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-self.num_rows // self.rows_per_step)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.num_epochs

    def epoch_of(self, step: int) -> int:
        """1-based epoch of a 0-based step."""
        return step // self.steps_per_epoch + 1

    def ends_epoch(self, steps_done: int) -> bool:
        """Return whether an epoch is over after so many steps."""
        return steps_done % self.steps_per_epoch == 0
