"""The plan of a step: a token of each request that decodes, and chunks of prompts that are prefilled."""

from __future__ import annotations

from collections.abc import Sequence

from sienn_ray.inference.batching.generation import RunningGeneration
from sienn_ray.inference.model.runner import StepRow


def plan(running: Sequence[RunningGeneration], max_tokens: int) -> list[tuple[RunningGeneration, StepRow]]:
    """Return the rows of the next step: decoding first, then chunked prefill.

    Requests that decode come first, since each of their callers waits for every step. Prompts share the rest, the
    oldest first, so a long one is prefilled in chunks over several steps and delays no other request.

    Args:
        running: The batch.
        max_tokens: Tokens of all rows together.
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
    assert generation.table is not None  # nosec B101 # for the type checker
    end = generation.num_computed + num
    return StepRow(
        generation.tokens[:end],
        generation.num_computed,
        generation.table.blocks,
        generation.adapter.name,
        wants_logits=end == len(generation.tokens),
    )
