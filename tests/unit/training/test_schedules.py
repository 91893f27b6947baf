from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
import transformers

from sienn_ray.training.config import LrScheduler
from sienn_ray.training.schedules import Schedule

KINDS: tuple[LrScheduler, ...] = get_args(LrScheduler)
RUNS = [(0.0, 1), (0.5, 1), (0.06, 2), (0.06, 100), (0.5, 7), (0.0, 40), (0.03, 5_000)]
TRANSFORMERS: dict[LrScheduler, Callable[..., Any]] = {
    "cosine": transformers.get_cosine_schedule_with_warmup,
    "linear": transformers.get_linear_schedule_with_warmup,
    "constant": lambda optimizer, num_warmup_steps, num_training_steps: transformers.get_constant_schedule_with_warmup(
        optimizer, num_warmup_steps
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("warmup_ratio", "num_steps"), RUNS)
def test_it_rises_to_one_and_never_again(kind: LrScheduler, warmup_ratio: float, num_steps: int) -> None:
    schedule = Schedule(kind, warmup_ratio, num_steps)
    factors = [schedule(step) for step in range(num_steps)]
    peak = schedule.num_warmup_steps
    assert factors[peak] == max(factors) == 1.0
    assert min(factors) > 0.0
    assert all(earlier < later for earlier, later in pairwise(factors[: peak + 1]))
    assert all(earlier > later for earlier, later in pairwise(factors[peak:])) or kind == "constant"


@pytest.mark.parametrize(
    ("kind", "after_warmup"),
    [
        ("cosine", lambda share: (1 + math.cos(math.pi * share)) / 2),
        ("linear", lambda share: 1 - share),
        ("constant", lambda share: 1.0),
    ],
)
def test_closed_form(kind: LrScheduler, after_warmup: Callable[[float], float]) -> None:
    num_steps, num_warmup = 50, 10
    schedule = Schedule(kind, num_warmup / num_steps, num_steps)
    rise = [(step + 1) / (num_warmup + 1) for step in range(num_warmup)]
    rest = [after_warmup((step - num_warmup) / (num_steps - num_warmup)) for step in range(num_warmup, num_steps + 1)]
    assert [schedule(step) for step in range(num_steps + 1)] == pytest.approx(rise + rest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("warmup_ratio", "num_steps"), RUNS)
def test_after_the_rise_it_is_the_one_of_transformers(kind: LrScheduler, warmup_ratio: float, num_steps: int) -> None:
    ours = Schedule(kind, warmup_ratio, num_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = TRANSFORMERS[kind](
        optimizer, num_warmup_steps=ours.num_warmup_steps, num_training_steps=num_steps
    ).lr_lambdas[0]
    steps = range(ours.num_warmup_steps, num_steps + 1)
    assert [ours(step) for step in steps] == pytest.approx([theirs(step) for step in steps])


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_learns_where_that_of_transformers_does_not(kind: LrScheduler) -> None:
    assert Schedule(kind, 0.1, 100)(0) == pytest.approx(1 / 11)


@pytest.mark.parametrize(("kind", "end"), [("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)])
def test_it_stays_where_it_ended(kind: LrScheduler, end: float) -> None:
    schedule = Schedule(kind, 0.06, 1_000)
    assert [schedule(1_000), schedule(5_000)] == pytest.approx([end, end])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [0, 1])
def test_run_of_hardly_any_steps(kind: LrScheduler, num_steps: int) -> None:
    assert 0.0 < Schedule(kind, 0.5, num_steps)(0) <= 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_saved_schedule_is_plain_data(kind: LrScheduler) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (saved,) = torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule(kind, 0.1, 10)).state_dict()["lr_lambdas"]
    assert {type(value) for value in saved.values()} <= {int, str}
