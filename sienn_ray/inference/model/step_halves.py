"""A step that memory is too short for, divided into two that are computed one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sienn_ray.inference.model.step_rows import StepRow


def halves(rows: Sequence[StepRow]) -> tuple[Sequence[StepRow], Sequence[StepRow]] | None:
    """Divide the requests of a step, or the tokens of its only one; None where there is but one token.

    Keys and values that the step has written before it failed are written again, and are the same.
    """
    if len(rows) > 1:
        middle = len(rows) // 2
        return rows[:middle], rows[middle:]
    row = rows[0]
    if row.num_new == 1:
        return None
    middle = row.num_before + row.num_new // 2
    first = replace(row, tokens=row.tokens[:middle], wants_logits=False)
    return [first], [replace(row, num_before=middle)]
