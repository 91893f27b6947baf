"""What the next step computes: a token of each request that decodes, and a piece of each prompt that is read."""

from __future__ import annotations

from collections.abc import Sequence

from sienn_ray.inference.generation import RunningGeneration
from sienn_ray.inference.model_runner import StepRow


def plan(running: Sequence[RunningGeneration], max_tokens: int) -> list[tuple[RunningGeneration, StepRow]]:
    """Rows of the next step, at most so many tokens together.

    Requests that decode go first, since each of their callers waits for every step; prompts share the rest, the oldest
    first, so a long one takes several steps and holds up nobody.
    """
    rows: list[tuple[RunningGeneration, StepRow]] = []
    left = max_tokens
    for each in sorted(running, key=lambda each: len(each.tokens) - each.num_computed > 1):
        num = min(len(each.tokens) - each.num_computed, left)
        if num > 0:
            rows.append((each, _row(each, num)))
            left -= num
    return rows


def _row(generation: RunningGeneration, num: int) -> StepRow:
    assert generation.table is not None  # noqa: S101
    end = generation.num_computed + num
    return StepRow(
        generation.tokens[:end],
        generation.num_computed,
        generation.table.blocks,
        generation.prompt.adapter,
        wants_logits=end == len(generation.tokens),
    )
