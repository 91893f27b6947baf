"""The division of a step's examples into micro batches, by what a forward pass may hold.

A loss is a sum over examples, so gradients are the same however a step is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.packing import BatchSize
from sienn_ray.training.micro_batch_limits import MicroBatchLimits


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
