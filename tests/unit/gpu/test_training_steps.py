"""Steps of the training loop on a GPU: on one device, and with as few kernels and waits as are written down."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.fake_cuda import Counts
from tests.unit.gpu.limits import TRAINING, Limits
from tests.unit.gpu.training_steps import training_step

# Told by transformers of bitsandbytes' custom operators, and by bitsandbytes of an optional package.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("name", list(TRAINING))
def test_a_step_asks_no_more_than_it_may(name: str, tmp_path: Path) -> None:
    case = TRAINING[name]
    smaller = training_step(case.shape, case.num_layers, case.run, tmp_path)
    larger = training_step(case.shape, 2 * case.num_layers, case.run, tmp_path)
    case.limits.check(name, smaller, larger, case.num_layers)


@pytest.mark.parametrize(
    ("layer", "rest", "words"),
    [(9, 20, "9 are allowed"), (10, 19, "19 are allowed"), (16, 20, "lower"), (10, 26, "lower")],
)
def test_a_limit_is_neither_exceeded_nor_slack(layer: int, rest: int, words: str) -> None:
    smaller, larger = (Counts(launches=Counter({"aten::mm": 20 + 10 * num_layers})) for num_layers in (1, 2))
    Limits(10, 20, 0).check("any", smaller, larger, 1)
    with pytest.raises(AssertionError, match=words):
        Limits(layer, rest, 0).check("any", smaller, larger, 1)
