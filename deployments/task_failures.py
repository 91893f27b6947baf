"""Errors of Ray tasks, as the service tells them."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayTaskError

from sienn_ray.errors import SiennError, first_line


def task_failure(error: RayTaskError, what: str) -> SiennError:
    """Return the task's own error, or one that says what couldn't be done.

    Args:
        error: What Ray raised for the task.
        what: What couldn't be done, as in "the rows couldn't be rendered".
    """
    cause: Any = getattr(error, "cause", None)
    if isinstance(cause, SiennError):
        return cause
    return SiennError(f"{what}: {type(cause or error).__name__}: {first_line(cause or error)}")
