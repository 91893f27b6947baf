"""Steps of the training loop on a GPU: on one device, and with as few kernels and waits as are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.gpu import shapes
from tests.unit.gpu.limits import TRAINING
from tests.unit.gpu.training_steps import Run, training_step


@pytest.mark.parametrize("name", list(TRAINING))
def test_a_step_asks_no_more_than_it_may(name: str, tmp_path: Path) -> None:
    case = TRAINING[name]
    smaller = training_step(case.shape, case.num_layers, case.run, tmp_path)
    larger = training_step(case.shape, 2 * case.num_layers, case.run, tmp_path)
    case.limits.check(name, smaller, larger, case.num_layers)


def test_a_whole_model_asks_what_its_layers_do(tmp_path: Path) -> None:
    limits = TRAINING["smollm2"].limits
    step = training_step(shapes.smollm2_135m, 30, Run(), tmp_path)
    # The optimizer's kernels take so many tensors each, so they grow with the model.
    assert step.num_launches <= 30 * (limits.layer + 1) + limits.rest
    assert step.num_waits <= limits.waits
