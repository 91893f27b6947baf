"""Steps of the training loop on a GPU: on one device, and with as few kernels and waits as are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.gpu.limits import TRAINING
from tests.unit.gpu.training_steps import training_step

# Told by transformers of bitsandbytes' custom operators, and by bitsandbytes of an optional package.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("name", list(TRAINING))
def test_a_step_asks_no_more_than_it_may(name: str, tmp_path: Path) -> None:
    case = TRAINING[name]
    smaller = training_step(case.shape, case.num_layers, case.run, tmp_path)
    larger = training_step(case.shape, 2 * case.num_layers, case.run, tmp_path)
    case.limits.check(name, smaller, larger, case.num_layers)
