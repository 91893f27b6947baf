"""How rows become optimizer steps: over workers, and in micro batches whose gradients add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sienn_ray.training.config import TrainingConfig


@dataclass(frozen=True)
class StepPlan:
    """Rows of a step and of a micro batch on each worker.

    What doesn't divide evenly is rounded down, since Ray gives every worker the same number of rows: `batch_size=4` on
    three workers takes three rows at once.

    Args:
        batch_size: Rows that all workers together take at once.
        gradient_accumulation_steps: Times that they do so in one optimizer step.
        num_workers: Workers.
    """

    batch_size: int
    gradient_accumulation_steps: int
    num_workers: int

    @classmethod
    def of(cls, config: TrainingConfig, num_workers: int) -> StepPlan:
        """The plan that a configuration asks for."""
        return cls(config.batch_size, config.gradient_accumulation_steps, num_workers)

    @property
    def rows_per_worker(self) -> int:
        """Rows of one optimizer step on one worker."""
        return max(1, self.batch_size * self.gradient_accumulation_steps // self.num_workers)

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step on all workers."""
        return self.rows_per_worker * self.num_workers

    @property
    def micro_batch_rows(self) -> int:
        """Rows of one forward pass on one worker."""
        return max(1, self.batch_size // self.num_workers)

    def steps_per_epoch(self, num_rows: int) -> int:
        """Optimizer steps of one pass over these rows."""
        return math.ceil(num_rows // self.num_workers / self.rows_per_worker)

    def eval_batches(self, num_rows: int) -> int:
        """Batches of one evaluation on these rows, on each worker."""
        return math.ceil(num_rows / (self.micro_batch_rows * self.num_workers))
