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
    found, sizes = _filled(examples, limits, limits.max_tokens, new_size)
    if len(found) < 2:
        return found
    return _filled(examples, limits, -(-sum(sizes) // len(sizes)), new_size)[0]


def _filled(
    examples: Sequence[Example], limits: MicroBatchLimits, enough: int, new_size: Callable[[], BatchSize]
) -> tuple[list[Sequence[Example]], list[int]]:
    """Fill micro batches one after another; one with `enough` tokens takes no more. Gives their tokens as well."""
    found: list[list[Example]] = []
    sizes: list[int] = []
    size = new_size()
    for example in examples:
        if found and sizes[-1] < enough and len(found[-1]) != limits.max_examples:
            num_tokens = size.add(example.rows)
            if num_tokens <= (limits.max_tokens or num_tokens):
                found[-1].append(example)
                sizes[-1] = num_tokens
                continue
        size = new_size()
        found.append([example])
        sizes.append(size.add(example.rows))
    return list(found), sizes
