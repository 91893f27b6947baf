"""Mismatched examples: prompts, each with an answer to another one, which KTO estimates its baseline from.

The answers of a step are dealt out over all workers, in an order that follows from their tokens alone. So the estimate
is the same on however many workers and in however many micro batches the step is done.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.packing import num_targets

# Tokens of a prompt and of an answer.
Parts = tuple[tuple[int, ...], tuple[int, ...]]


def parts_of(example: Example) -> Parts:
    """Split an example of one row before its first label."""
    ((input_ids, labels),) = example.rows
    start = next((place for place, label in enumerate(labels) if label != IGNORE_INDEX), len(labels))
    return tuple(input_ids[:start]), tuple(input_ids[start:])


def mismatched(own: Sequence[Parts], all_parts: Sequence[Parts], max_length: int) -> list[Example]:
    """Give each prompt the next answer in the step's order that is one to another prompt.

    Args:
        own: Prompts and answers of this worker.
        all_parts: Those of all workers, in any order.
        max_length: Tokens of an example; what is beyond is cut off.

    Returns:
        One example for each of `own`, but for those without another prompt in the step, or without room for an answer.

    Example:
        >>> parts = [((1, 2), (3,)), ((4, 5), (6, 7))]
        >>> [example.rows[0] for example in mismatched(parts, parts, max_length=8)]
        [((1, 2, 6, 7), (-100, -100, 6, 7)), ((4, 5, 3), (-100, -100, 3))]
    """
    order = sorted(set(all_parts), key=_digest)
    places = {parts: place for place, parts in enumerate(order)}
    followers = _next_other_prompts(order)
    found = []
    for prompt, answer in own:
        follower = followers[places[prompt, answer]]
        if follower is None:
            continue
        other = order[follower][1]
        input_ids, labels = (*prompt, *other)[:max_length], (*([IGNORE_INDEX] * len(prompt)), *other)[:max_length]
        if num_targets(labels):
            found.append(Example(((input_ids, labels),)))
    return found


def _next_other_prompts(order: Sequence[Parts]) -> list[int | None]:
    """For each place, the next one around that has another prompt; None where all are the same."""
    count = len(order)
    if len({prompt for prompt, _ in order}) < 2:
        return [None] * count
    found: list[int | None] = [None] * count
    # Twice around from the back, so that each place knows what its follower has found.
    for turn in range(2 * count - 1, -1, -1):
        place, after = turn % count, (turn + 1) % count
        found[place] = after if order[after][0] != order[place][0] else found[after]
    return found


def _digest(parts: Parts) -> bytes:
    """Order as good as random, so that no prompt is next to one that begins alike."""
    prompt, answer = (array("q", tokens).tobytes() for tokens in parts)
    return hashlib.blake2b(len(prompt).to_bytes(8) + prompt + answer, digest_size=16).digest()
