"""Warnings before a run: learning rates and numbers of rows that preferences aren't learned with."""

from __future__ import annotations

from collections.abc import Collection

from sienn_ray.datasets.schema import RowKind
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.methods import Method, method_of

# Papers train whole models at 3e-7 to 8e-6 (DPO 1e-6, arXiv:2305.18290, appendix B; SimPO 3e-7 to 1e-6,
# arXiv:2405.14734, appendix B; ORPO 8e-6, arXiv:2403.07691), TRL's script for DPO takes 5e-7, and 5e-6 with LoRA.
MAX_PREFERENCE_LEARNING_RATE = 5e-5
_USUAL = "LoRA learns preferences at about 1e-5 to 5e-5, whole models at less"
# The smallest sets of the papers have some thousands of pairs; below this, single pairs are learned by heart.
MIN_PREFERENCE_ROWS = 100


def warnings_of(
    config: TrainingConfig, row_kind: RowKind, num_rows: int, given: Collection[str] = ()
) -> tuple[str, ...]:
    """Return what a user should know of before the run.

    Args:
        config: Hyperparameters.
        row_kind: The rows that it learns from.
        num_rows: How many there are.
        given: Names of the hyperparameters that were asked for, rather than left at their defaults.
    """
    method = method_of(row_kind, config.method)
    found = [_of_learning_rate(config, method), _of_rows(method, num_rows), _of_baseline(config, method)]
    return tuple(filter(None, [*found, _of_others(method, given)]))


def _of_learning_rate(config: TrainingConfig, method: Method) -> str | None:
    if not method.has_rewards or config.learning_rate <= MAX_PREFERENCE_LEARNING_RATE:
        return None
    return (
        f"learning_rate={config.learning_rate:g} is high for method={method}: answers tend to fall apart rather than "
        f"to become better ({_USUAL}); lower it to {MAX_PREFERENCE_LEARNING_RATE:g} or less"
    )


def _of_rows(method: Method, num_rows: int) -> str | None:
    if not method.has_rewards or not 0 < num_rows < MIN_PREFERENCE_ROWS:
        return None
    rows = "1 row is" if num_rows == 1 else f"{num_rows} rows are"
    return (
        f"{rows} few to learn preferences from: the run learns these answers rather than what makes answers better; "
        f"use {MIN_PREFERENCE_ROWS} or more, or have them written as conversations and use method=sft"
    )


def _of_baseline(config: TrainingConfig, method: Method) -> str | None:
    if method is not Method.KTO or config.rows_per_step > 1:
        return None
    return (
        "batch_size=1 with gradient_accumulation_steps=1 leaves KTO without a baseline, which it estimates from the "
        "other answers of a step; raise either"
    )


def _of_others(method: Method, given: Collection[str]) -> str | None:
    unread = sorted(name for name in given if any(other.owns(name) for other in Method if other is not method))
    if not unread:
        return None
    return f"method={method} doesn't read {', '.join(unread)}; leave that out, or choose the method that does"
