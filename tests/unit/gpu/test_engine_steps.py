"""Steps of the engine on a GPU: as few kernels and waits as are written down, also where a graph replays them."""

from __future__ import annotations

import pytest

from tests.unit.gpu.decoding_steps import decoding_step, sampling_step
from tests.unit.gpu.limits import DECODING, SAMPLING

AS_THEY_ARE = list(DECODING)
REPLAYED = [name for name, case in DECODING.items() if case.replayed is not None]


@pytest.mark.parametrize(
    ("name", "is_graphed"), [*((name, False) for name in AS_THEY_ARE), *((name, True) for name in REPLAYED)]
)
def test_a_step_asks_no_more_than_it_may(name: str, is_graphed: bool) -> None:
    case = DECODING[name]
    limits = case.replayed if is_graphed else case.limits
    assert limits is not None
    smaller, larger = (
        decoding_step(case.shape, num_layers, case.batch, is_graphed=is_graphed)
        for num_layers in (case.num_layers, 2 * case.num_layers)
    )
    limits.check(f"{name}, replayed" if is_graphed else name, smaller, larger, case.num_layers)
    assert dict(larger.uploads) == {"pinned": 1}


@pytest.mark.parametrize("name", list(SAMPLING))
def test_the_choice_of_tokens_asks_no_more_than_it_may(name: str) -> None:
    counts = sampling_step(SAMPLING[name].params)
    SAMPLING[name].check(name, counts)
    assert set(counts.uploads) <= {"pinned"}
