"""The division of a step's examples into micro batches, by what a forward pass may hold.

A loss is a sum over examples, so gradients are the same however a step is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.packing import BatchSize


@dataclass(frozen=True)
class MicroBatchLimits:
    """Most that a micro batch may hold; one example may always be alone in one, however many tokens it has.

    Args:
        max_examples: Examples; None is any number.
        max_tokens: Tokens that the base model computes: padding counts, and what rows share counts once. None is any
            number.
    """

    max_examples: int | None = None
    max_tokens: int | None = None

    def tightened(self, other: MicroBatchLimits) -> MicroBatchLimits:
        """Return the limits that keep within these and others.

        Example:
            >>> MicroBatchLimits(max_examples=4, max_tokens=512).tightened(MicroBatchLimits(max_tokens=100))
            MicroBatchLimits(max_examples=4, max_tokens=100)
        """
        return MicroBatchLimits(
            _lower(self.max_examples, other.max_examples), _lower(self.max_tokens, other.max_tokens)
        )


def _lower(first: int | None, second: int | None) -> int | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)


def divided(
    examples: Sequence[Example], limits: MicroBatchLimits, new_size: Callable[[], BatchSize]
) -> list[Sequence[Example]]:
    """Divide examples into micro batches, in their order.

    Where tokens limit them, they are about equal rather than full: a small last one would leave a GPU idle.

    Args:
        examples: Of a step.
        limits: Of a micro batch.
        new_size: Makes the count of a micro batch's tokens.
    """
    if limits.max_tokens is None:
        size = limits.max_examples or max(len(examples), 1)
        return [examples[start : start + size] for start in range(0, len(examples), size)]
    enough = _even_share(sum(example.num_tokens for example in examples), limits.max_tokens)
    found: list[Sequence[Example]] = []
    current: list[Example] = []
    size_of_current, num_tokens = new_size(), 0
    for example in examples:
        is_full = num_tokens >= enough or len(current) == limits.max_examples
        num_tokens = size_of_current.add(example.rows)
        if current and (is_full or num_tokens > limits.max_tokens):
            found.append(current)
            current, size_of_current = [], new_size()
            num_tokens = size_of_current.add(example.rows)
        current.append(example)
    return [*found, current] if current else found


def _even_share(num_tokens: int, max_tokens: int) -> int:
    """Tokens of each of the fewest micro batches that hold them all."""
    num_batches = max(1, -(-num_tokens // max_tokens))
    return -(-num_tokens // num_batches)
