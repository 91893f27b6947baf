"""Loss over the rows that are held out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sienn_ray.datasets.token_stream import Share, TokenArrays
from sienn_ray.training.collation import CollatedStep
from sienn_ray.training.prefetch import Prefetched
from sienn_ray.training.rewards import Rewards, RewardSums
from sienn_ray.training.spec import RowSource
from sienn_ray.training.step_loss import RunningSums
from sienn_ray.training.worker import Worker, global_sums

if TYPE_CHECKING:
    from sienn_ray.training.preparation import Learner
    from sienn_ray.training.reporting import ProgressMeter

# Tokens of held-out rows that a worker keeps, rather than tokenize them for each evaluation: 64 MiB or so.
_MAX_KEPT_TOKENS = 4 * 1024**2


@dataclass(frozen=True)
class Evaluated:
    """Results of an evaluation, over all workers.

    Args:
        loss: Mean per completion token in nats, per pair, or per labelled answer.
        rewards: Of the answers, where the loss has rewards.
    """

    loss: float
    rewards: Rewards | None = None


class Evaluation:
    """Evaluates an adapter, as often as it is asked.

    Args:
        rows: The held-out rows, if any.
        num_rows: How many there are, on all workers.
        learner: Computes losses.
        worker: This worker; each takes its share of the rows.
        rows_per_batch: Rows of a batch on each worker, which may be several micro batches.

    Attributes:
        num_rows: How many there are, on all workers.
        num_long_rows: How many of them have more than `max_length` tokens; 0 before the first evaluation.
    """

    def __init__(
        self, rows: RowSource | None, num_rows: int, learner: Learner, worker: Worker, *, rows_per_batch: int
    ) -> None:
        self._rows = rows
        self._learner = learner
        self._worker = worker
        self._share = Share(rows_per_batch * worker.world_size, worker.rank, worker.world_size)
        self._kept: list[list[TokenArrays]] | None = None
        self.num_rows = num_rows if rows is not None else 0
        self.num_long_rows = 0

    @property
    def num_batches(self) -> int:
        """Batches of one evaluation, on each worker."""
        return self._share.steps_per_epoch(self.num_rows)

    @torch.no_grad()
    def run(self, meter: ProgressMeter, *, epoch: int, step: int, is_start: bool = False) -> Evaluated | None:
        """Evaluate the rows; None where no row has an answer.

        Args:
            meter: Told after each batch.
            epoch: For the meter.
            step: For the meter.
            is_start: Whether to evaluate the model that the run starts from.
        """
        self._learner.adapter.eval()
        with self._learner.gradients.at_start() if is_start else nullcontext():
            return self._evaluate(meter, epoch, step)

    def _evaluate(self, meter: ProgressMeter, epoch: int, step: int) -> Evaluated | None:
        total, weight, num_long = RunningSums(self._worker.device).values, 0, 0
        with Prefetched(self._batches()) as batches:
            for number, batch in enumerate(batches, start=1):
                found = self._learner.gradients.loss(batch)
                total += found.sums
                weight, num_long = weight + found.weight, num_long + batch.counts.num_long
                meter.eval_batch(epoch=epoch, step=step, batch=number)
        own = [weight, num_long, *total.tolist()]
        all_weight, all_long, all_loss, *rewards = global_sums(own, self._worker.device)
        self.num_long_rows = int(all_long)
        return Evaluated(all_loss / all_weight, RewardSums(*rewards).means()) if all_weight else None

    def _batches(self) -> Iterator[CollatedStep]:
        """Collate batches, as the taker's thread computes those before."""
        for rows in self._rows_of_batches():
            yield self._learner.collator.step(rows)

    def _rows_of_batches(self) -> Iterator[list[TokenArrays]]:
        if self._kept is not None:
            yield from self._kept
            return
        assert self._rows is not None  # nosec B101 # for the type checker
        kept: list[list[TokenArrays]] | None = []
        num_tokens = 0
        for _, rows in self._rows.steps(self._share, first_step=0, num_steps=self.num_batches):
            num_tokens += sum(len(row.input_ids) for row in rows)
            if kept is not None:
                kept.append(rows)
            if num_tokens > _MAX_KEPT_TOKENS:
                kept = None
            yield rows
        self._kept = kept
