"""The gradients of one optimizer step: over micro batches, over workers, and within the memory that there is."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

import torch

from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hardware import is_out_of_memory
from sienn_ray.training.long_rows import RowCounts
from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.mismatched import mismatched, parts_of
from sienn_ray.training.loss.objectives import Objective
from sienn_ray.training.loss_scale import LossScale
from sienn_ray.training.rewards import NO_REWARDS, RewardSums
from sienn_ray.training.worker import Worker, add_up_gradients, gathered, global_max, global_sums

logger = logging.getLogger(__name__)

# Takes part in sharded forward passes where a worker has no rows left; its loss counts nothing.
_FILLER_ROW = ([0, 0], [-100, 0])

T = TypeVar("T")


class StepLoss(NamedTuple):
    """Loss and tokens of one optimizer step, over all workers.

    Args:
        mean: Loss per completion token in nats, or per preference pair; NaN of no examples.
        weight: Completion tokens, pairs, or labelled answers.
        num_tokens: All tokens of the rows.
        rewards: Of the answers, where the loss has rewards.
    """

    mean: float
    weight: int
    num_tokens: int
    rewards: RewardSums = NO_REWARDS


class LossTotal(NamedTuple):
    """Losses of one worker's examples.

    Args:
        loss: Their sum.
        weight: What makes a mean of it.
        rewards: Of the answers, where the loss has rewards.
    """

    loss: float
    weight: int
    rewards: RewardSums = NO_REWARDS


class GradientStep:
    """Computes gradients and losses of examples, in micro batches.

    Args:
        objective: The loss.
        worker: This worker.
        config: Hyperparameters, for messages.
        micro_batch_rows: Examples of a forward pass; halved when memory runs out.
        min_micro_batches: Forward passes that every worker does in a step, however few examples it has; 0 where
            workers needn't keep step with each other.
        is_length_grouped: Whether examples of like lengths share a micro batch, since padding costs time.
        loss_scale: Scale of the loss, where gradients are computed in float16.
    """

    def __init__(
        self,
        objective: Objective,
        worker: Worker,
        config: TrainingConfig,
        *,
        micro_batch_rows: int,
        min_micro_batches: int = 0,
        is_length_grouped: bool = False,
        loss_scale: LossScale | None = None,
    ) -> None:
        self._objective = objective
        self._worker = worker
        self._config = config
        self._min_micro_batches = min_micro_batches
        self._num_passes = min_micro_batches
        self._is_length_grouped = is_length_grouped
        self.loss_scale = loss_scale or LossScale(torch.float32)
        self.micro_batch_rows = micro_batch_rows

    def examples(self, rows: Sequence[TokenArrays]) -> tuple[list[Example], RowCounts]:
        """Rows that belong together, and what was left out or cut; a pair that is left out is one empty row."""
        size = self._objective.rows_per_example
        kept = [row for row in rows if row.input_ids]
        dropped = [row for row in rows if not row.input_ids]
        together = [kept[start : start + size] for start in range(0, len(kept), size)]
        num_cut = sum(any(row.num_over for row in example) for example in together)
        # A row that was split may have had an exchange too long for any piece: split and cut, one long row.
        num_only_split = sum(row.is_split and not row.num_over for row in kept)
        counts = RowCounts(
            num_dropped=len(dropped),
            num_long=num_cut + num_only_split + sum(row.num_over > 0 for row in dropped),
            num_split=sum(row.is_split for row in kept),
            num_cut=num_cut,
            num_cut_tokens=sum(row.num_over for row in kept),
        )
        examples = [
            Example(tuple((row.input_ids, row.labels) for row in example), example[0].is_desirable)
            for example in together
        ]
        return examples, counts

    def at_start(self) -> AbstractContextManager[None]:
        """Compute losses of the model that the run starts from meanwhile."""
        return self._objective.at_start()

    def accumulate(self, parameters: Sequence[torch.nn.Parameter], examples: Sequence[Example]) -> StepLoss:
        """Leave the gradients of the mean loss over all workers' examples in the parameters.

        Raises:
            TrainingError: Memory doesn't even suffice for one example at a time.
        """
        self._agree_on_passes(examples)
        own = [self._objective.weight(examples), sum(example.num_tokens for example in examples)]
        weight, num_tokens = global_sums(own, self._worker.device)
        self._estimate_baseline(examples, parameters)
        scale = 1.0 / max(weight, 1.0)

        def compute(loss_scale: float) -> LossTotal:
            total = self._within_memory(parameters, lambda: self._backward(examples, scale * loss_scale))
            add_up_gradients(parameters)
            return total

        total = self.loss_scale.without_overflow(parameters, compute)
        loss_sum, *rewards = global_sums([total.loss, *total.rewards], self._worker.device)
        mean = loss_sum / weight if weight else math.nan
        return StepLoss(mean, int(weight), int(num_tokens), RewardSums(*rewards))

    @torch.no_grad()
    def loss(self, examples: Sequence[Example]) -> LossTotal:
        """Sums of this worker's losses and rewards."""
        self._agree_on_passes(examples)
        self._estimate_baseline(examples)
        total, rewards = 0.0, NO_REWARDS
        for micro_batch, is_filler in self._micro_batches(examples):
            sums = self._objective.sums(micro_batch)
            if not is_filler:
                total, rewards = total + float(sums.loss), rewards.plus(_rewards_of(sums.rewards))
        return LossTotal(total, self._objective.weight(examples), rewards)

    def _agree_on_passes(self, examples: Sequence[Example]) -> None:
        """Have workers that keep step do as many forward passes as the one that has most.

        A row may make several examples, so a worker may have more than its share of the rows would tell.
        """
        if self._min_micro_batches:
            own = -(-len(examples) // self.micro_batch_rows)
            self._num_passes = max(self._min_micro_batches, global_max(own, self._worker.device))

    def _estimate_baseline(self, examples: Sequence[Example], parameters: Sequence[torch.nn.Parameter] = ()) -> None:
        """Set what the losses of these examples depend on together, where they do; on all workers at once.

        It is from all examples of a step before the first of its micro batches, so it doesn't depend on their size.
        """
        if not self._objective.has_baseline:
            return
        own = [parts_of(example) for example in examples]
        others = mismatched(own, gathered(own), self._config.max_length)
        log_ratios = self._within_memory(parameters, lambda: self._log_ratio_sum(others))
        total, count = global_sums([log_ratios, len(others)], self._worker.device)
        self._objective.baseline = max(total / count, 0.0) if count else 0.0

    def _log_ratio_sum(self, examples: Sequence[Example]) -> float:
        total = 0.0
        for micro_batch, is_filler in self._micro_batches(examples):
            found = self._objective.log_ratio_sum(micro_batch)
            total += 0.0 if is_filler else found
        return total

    def _within_memory(self, parameters: Sequence[torch.nn.Parameter], work: Callable[[], T]) -> T:
        """Do it, again with smaller micro batches where memory runs out."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._min_micro_batches:
                    raise
                self._halve(error)
            # Behind the handler: until it is left, the error holds the failed pass's tensors.
            for parameter in parameters:
                parameter.grad = None
            gc.collect()
            if self._worker.device.type == "cuda":
                torch.cuda.empty_cache()

    def _halve(self, error: BaseException) -> None:
        if self.micro_batch_rows == 1:
            raise out_of_memory(self._config) from error
        self.micro_batch_rows //= 2
        logger.warning(
            "out of memory: a micro batch has %d rows from now on, and a step as many more of them",
            self.micro_batch_rows,
        )

    def _backward(self, examples: Sequence[Example], scale: float) -> LossTotal:
        total, rewards = 0.0, NO_REWARDS
        for micro_batch, is_filler in self._micro_batches(examples):
            sums = self._objective.sums(micro_batch)
            (sums.loss * (0.0 if is_filler else scale)).backward()  # type: ignore[no-untyped-call]
            if not is_filler:
                total, rewards = total + float(sums.loss.detach()), rewards.plus(_rewards_of(sums.rewards))
        return LossTotal(total, 0, rewards)

    def _micro_batches(self, examples: Sequence[Example]) -> Iterator[tuple[Sequence[Example], bool]]:
        """Micro batches, and whether each is only there to keep step."""
        if self._is_length_grouped:
            examples = sorted(examples, key=lambda example: -max(len(ids) for ids, _ in example.rows))
        starts = range(0, len(examples), self.micro_batch_rows)
        for start in starts:
            yield examples[start : start + self.micro_batch_rows], False
        for _ in range(self._num_passes - len(starts)):
            yield [Example((_FILLER_ROW,) * self._objective.rows_per_example)], True


def _rewards_of(numbers: torch.Tensor | None) -> RewardSums:
    return NO_REWARDS if numbers is None else RewardSums(*numbers.tolist())


def out_of_memory(config: TrainingConfig) -> TrainingError:
    """Return the error for a batch that can't be made smaller."""
    return TrainingError(
        f"out of memory even with one row at a time and max_length={config.max_length}; lower max_length or lora_r, "
        "set gradient_checkpointing=true or quantization=nf4, choose a smaller base model, or give the workers more "
        "memory",
        FailureReason.OUT_OF_MEMORY,
    )
