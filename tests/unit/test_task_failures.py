"""Errors of Ray tasks: the task's own where it is one of ours, else in words that name it."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from deployments.task_failures import task_failure
from sienn_ray.errors import InvalidDatasetError, SiennError


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("render", "a traceback", cause)


def test_an_own_error_is_told_as_it_is() -> None:
    cause = InvalidDatasetError("no such row")
    assert task_failure(raised(cause), "rows couldn't be rendered") is cause


@pytest.mark.parametrize("cause", [KeyError("row"), ValueError("row\nand more lines")])
def test_another_error_is_named_in_a_line(cause: Exception) -> None:
    found = task_failure(raised(cause), "rows couldn't be rendered")
    assert type(found) is SiennError
    assert found.message.startswith(f"rows couldn't be rendered: {type(cause).__name__}: ")
    assert "\n" not in found.message
