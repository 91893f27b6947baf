"""The gradients of one optimizer step: over micro batches, over workers, and within the memory that there is."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, TypeVar

import torch

from sienn_ray.errors import FailureReason, MicroBatchMemoryError, TrainingError
from sienn_ray.memory_shortage import is_out_of_memory
from sienn_ray.training.collation import CollatedStep, Collator
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.loss.batches import Batch, StagedBatch
from sienn_ray.training.loss.mismatched import mismatched, parts_of
from sienn_ray.training.loss.objectives import Objective
from sienn_ray.training.loss_scale import LossScale
from sienn_ray.training.step_loss import RunningSums, UnreadStepLoss
from sienn_ray.training.worker import Worker, add_up, add_up_gradients, gathered, gathered_counts, global_max

logger = logging.getLogger(__name__)

T = TypeVar("T")


class LossTotal(NamedTuple):
    """Losses of one worker's examples.

    Args:
        sums: (7,) float64 on the device; see `RunningSums`.
        weight: What makes a mean of the loss.
    """

    sums: torch.Tensor
    weight: int


class GradientStep:
    """Computes gradients and losses of examples, in micro batches.

    No micro batch waits for a GPU, so they are queued for it as fast as it takes them. A step does so once where
    several workers exchange counts, and once where it computes in float16, whose gradients may have overflowed.

    Args:
        objective: The loss.
        worker: This worker.
        config: Hyperparameters, for messages.
        collator: Makes micro batches; its limits are lowered when memory runs out.
        is_sharded: Whether the base model is shared out, so that workers keep step with each other: each does as many
            forward passes as the one that has most.
        loss_scale: Scale of the loss, where gradients are computed in float16.
    """

    def __init__(
        self,
        objective: Objective,
        worker: Worker,
        config: TrainingConfig,
        collator: Collator,
        *,
        is_sharded: bool = False,
        loss_scale: LossScale | None = None,
    ) -> None:
        self._objective = objective
        self._worker = worker
        self._config = config
        self._collator = collator
        self._is_sharded = is_sharded
        self._last: StagedBatch | None = None
        self.loss_scale = loss_scale or LossScale(torch.float32)

    def at_start(self) -> AbstractContextManager[None]:
        """Compute losses of the model that the run starts from meanwhile."""
        return self._objective.at_start()

    def accumulate(self, parameters: Sequence[torch.nn.Parameter], step: CollatedStep) -> UnreadStepLoss:
        """Leave the gradients of the mean loss over all workers' examples in the parameters.

        Raises:
            MicroBatchMemoryError: Memory is too short, and another attempt may have room for smaller micro batches.
            TrainingError: Memory doesn't even suffice for one example at a time.
        """
        step = self._collator.renewed(step)
        counts = gathered_counts([step.weight, step.num_tokens, len(step.micro_batches)], self._worker.device)
        weight, num_tokens = (sum(count[place] for count in counts) for place in (0, 1))
        num_passes = max(count[2] for count in counts)
        self._estimate_baseline(step, parameters)
        scale = 1.0 / max(weight, 1.0)

        def compute(loss_scale: float) -> torch.Tensor:
            sums = self._within_memory(parameters, lambda: self._backward(step, scale * loss_scale, num_passes))
            self._last = max(self._collator.renewed(step).micro_batches, key=_num_tokens, default=None)
            with self.telling_shortage():
                add_up_gradients(parameters)
                return add_up(sums)

        sums = self.loss_scale.without_overflow(parameters, compute)
        return UnreadStepLoss(sums, weight, num_tokens)

    @torch.no_grad()
    def loss(self, step: CollatedStep) -> LossTotal:
        """Sums of this worker's losses and rewards."""
        self._estimate_baseline(step)
        return LossTotal(self._within_memory((), lambda: self._forward(step)), step.weight)

    @contextmanager
    def telling_shortage(self) -> Iterator[None]:
        """Have work that can't be done again here tell what another attempt is to do where memory runs out in it.

        Raises:
            MicroBatchMemoryError: Another attempt may have room for smaller micro batches.
            TrainingError: They can't be smaller.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            max_tokens = self._half(error)
            words = f"out of memory; micro batches of at most {max_tokens} tokens may fit, which takes another attempt"
            raise MicroBatchMemoryError(words, max_tokens) from error

    def _forward(self, step: CollatedStep) -> torch.Tensor:
        total = RunningSums(self._worker.device)
        micro_batches = self._collator.renewed(step).micro_batches
        for batch, is_filler in self._placed(micro_batches, self._agreed_passes(micro_batches)):
            sums = self._objective.sums(batch)
            if not is_filler:
                total.add(sums)
        return total.values

    def _backward(self, step: CollatedStep, scale: float, num_passes: int) -> torch.Tensor:
        total = RunningSums(self._worker.device)
        for batch, is_filler in self._placed(self._collator.renewed(step).micro_batches, num_passes):
            sums = self._objective.sums(batch)
            (sums.loss * (0.0 if is_filler else scale)).backward()  # type: ignore[no-untyped-call]
            if not is_filler:
                total.add(sums)
        return total.values

    def _estimate_baseline(self, step: CollatedStep, parameters: Sequence[torch.nn.Parameter] = ()) -> None:
        """Set what the losses of these examples depend on together, where they do; on all workers at once.

        It is from all examples of a step before the first of its micro batches, so it doesn't depend on their size.
        """
        if not self._objective.has_baseline:
            return
        own = [parts_of(example) for example in step.examples]
        others = mismatched(own, gathered(own), self._config.max_length)
        log_ratios = self._within_memory(parameters, lambda: self._log_ratio_sum(self._collator.stage(others)))
        total, count = add_up(torch.stack([log_ratios, torch.full_like(log_ratios, len(others))]))
        self._objective.baseline = (total / count.clamp(min=1)).clamp(min=0.0)

    def _log_ratio_sum(self, staged: Sequence[StagedBatch]) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self._worker.device)
        for batch, is_filler in self._placed(staged, self._agreed_passes(staged)):
            found = self._objective.log_ratio_sum(batch)
            if not is_filler:
                total += found
        return total

    def _agreed_passes(self, staged: Sequence[StagedBatch]) -> int:
        """Forward passes of the worker that has most, where workers keep step: token counts differ between them."""
        if not self._is_sharded:
            return len(staged)
        return global_max(len(staged), self._worker.device)

    def _placed(self, staged: Sequence[StagedBatch], num_passes: int) -> Iterator[tuple[Batch, bool]]:
        """Micro batches on the device, and whether each is only there to keep step."""
        for each in staged:
            self._last = each
            yield each.placed(), False
        for _ in range(num_passes - len(staged) if self._is_sharded else 0):
            yield self._collator.filler().placed(), True

    def _within_memory(self, parameters: Sequence[torch.nn.Parameter], work: Callable[[], T]) -> T:
        """Do it, again with smaller micro batches where memory runs out.

        Where the base model is shared out only another attempt can: the others are in the same pass, and wait for this
        worker's part of the base model.
        """
        if self._is_sharded:
            with self.telling_shortage():
                return work()
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
            # Behind the handler: until it is left, the error holds the failed pass's tensors.
            for parameter in parameters:
                parameter.grad = None
            gc.collect()
            if self._worker.device.type == "cuda":
                torch.cuda.empty_cache()

    def _halve(self, error: BaseException) -> None:
        """Let a micro batch have half of the tokens that the failed one has."""
        max_tokens = self._half(error)
        self._collator.lower(max_tokens)
        logger.warning(
            "out of memory: a micro batch has at most %d tokens from now on, and a step as many more of them",
            max_tokens,
        )

    def _half(self, error: BaseException) -> int:
        """Half of the tokens of the micro batch that memory ran out with, or after."""
        failed = None if self._last is None else self._last.batch
        if failed is None or len(failed.targets_per_row) <= self._objective.rows_per_example:
            raise out_of_memory(self._config) from error
        return failed.num_computed_tokens // 2


def _num_tokens(staged: StagedBatch) -> int:
    return staged.batch.num_computed_tokens


def out_of_memory(config: TrainingConfig) -> TrainingError:
    """Return the error for a batch that can't be made smaller."""
    return TrainingError(
        f"out of memory even with one row at a time and max_length={config.max_length}; lower max_length or lora_r, "
        "set gradient_checkpointing=true or quantization=nf4, choose a smaller base model, or give the workers more "
        "memory",
        FailureReason.OUT_OF_MEMORY,
    )
