"""Functions that run as Ray tasks are made tasks once, since Ray keeps each for as long as the cluster lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import deployments.dataset_statistics
import deployments.rendered_rows
import sienn_ray.jobs.supervision.export_runs


@pytest.mark.parametrize(
    "task",
    [
        deployments.dataset_statistics._task,
        deployments.rendered_rows._task,
        sienn_ray.jobs.supervision.export_runs._task,
    ],
)
def test_a_task_is_made_once(task: Callable[[], Any]) -> None:
    assert task() is task()
