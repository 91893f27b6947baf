"""From a worker's rows of a step to micro batches, ready to be copied to its device; any thread may do that ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.training.long_rows import RowCounts
from sienn_ray.training.loss.batches import StagedBatch
from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.objectives import Objective
from sienn_ray.training.loss.packing import PackedSize, PaddedSize
from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from sienn_ray.training.micro_batches import divided

# Takes part in sharded forward passes where a worker has no rows left; its loss counts nothing.
_FILLER_ROW = ([0, 0], [-100, 0])


@dataclass(frozen=True)
class CollatedStep:
    """A worker's examples of a step.

    Args:
        examples: All of them.
        counts: Rows that were left out or cut.
        weight: What makes a mean of their loss; see `Objective.weight`.
        micro_batches: The same examples, divided.
        limits: By which they are divided.
    """

    examples: Sequence[Example]
    counts: RowCounts
    weight: int
    micro_batches: Sequence[StagedBatch]
    limits: MicroBatchLimits

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(example.num_tokens for example in self.examples)


class Collator:
    """Makes micro batches.

    Args:
        objective: The loss; it collates.
        device: Where micro batches go.
        limits: Of a micro batch.
        is_packed: Whether rows are packed. Else examples of like lengths share a micro batch, since padding costs time.

    Attributes:
        limits: Of a micro batch; lowered when memory runs out.
        lowered_to: The tokens that it was lowered to; None while memory has sufficed.
    """

    def __init__(
        self, objective: Objective, device: torch.device, limits: MicroBatchLimits, *, is_packed: bool
    ) -> None:
        self._objective = objective
        self._device = device
        self._is_packed = is_packed
        self.limits = limits
        self.lowered_to: int | None = None

    def lower(self, max_tokens: int) -> None:
        """Make smaller micro batches from now on; steps that are collated already are to be `renewed`."""
        self.lowered_to = max_tokens
        self.limits = self.limits.tightened(MicroBatchLimits(max_tokens=max_tokens))

    def step(self, rows: Sequence[TokenArrays]) -> CollatedStep:
        """Collate a worker's rows of a step, of which there may be none."""
        examples, counts = self._examples(rows)
        limits = self.limits
        micro_batches = self._staged(examples, limits)
        return CollatedStep(examples, counts, self._objective.weight(examples), micro_batches, limits)

    def stage(self, examples: Sequence[Example]) -> list[StagedBatch]:
        """Divide examples into micro batches."""
        return self._staged(examples, self.limits)

    def renewed(self, step: CollatedStep) -> CollatedStep:
        """Return a step as it is divided now; limits may have been lowered since."""
        if step.limits == self.limits:
            return step
        return replace(step, micro_batches=self.stage(step.examples), limits=self.limits)

    def filler(self) -> StagedBatch:
        """Make a micro batch that is there to keep step with other workers only."""
        return self._stage([Example((_FILLER_ROW,) * self._objective.rows_per_example)])

    def _staged(self, examples: Sequence[Example], limits: MicroBatchLimits) -> list[StagedBatch]:
        if not self._is_packed:
            examples = sorted(examples, key=lambda example: -max(len(ids) for ids, _ in example.rows))
        new_size = PackedSize if self._is_packed else PaddedSize
        return [self._stage(part) for part in divided(examples, limits, new_size)]

    def _stage(self, examples: Sequence[Example]) -> StagedBatch:
        return StagedBatch(self._objective.collate(examples), self._device)

    def _examples(self, rows: Sequence[TokenArrays]) -> tuple[list[Example], RowCounts]:
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
