from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sienn_ray.base_model import load_causal_lm
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.training.loss_scale import LossScale
from tests.unit.training.training import CPU, Trainee, config_of


def gradient(scale: LossScale, factor: float) -> tuple[torch.Tensor, list[float]]:
    """The gradient of a factor times a number that is multiplied in float16, and the scales that were tried."""
    number, tried = torch.nn.Parameter(torch.ones(())), []

    def compute(loss_scale: float) -> torch.Tensor:
        tried.append(loss_scale)
        ((number.half() * factor).float() * loss_scale).backward()  # type: ignore[no-untyped-call]
        return torch.zeros(7)

    scale.without_overflow([number], compute)
    assert number.grad is not None
    return number.grad, tried


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_than_float16_have_none(dtype: torch.dtype) -> None:
    scale = LossScale(dtype, 8.0)
    assert (scale.is_used, scale.value) == (False, 1.0)
    assert gradient(scale, 3.0) == (torch.tensor(3.0), [1.0])


def test_small_gradients_keep_their_digits() -> None:
    """2^-30 is no number of float16."""
    scale = LossScale(torch.float16)
    number = torch.nn.Parameter(torch.ones(()))

    def compute(loss_scale: float) -> torch.Tensor:
        (number.half().float() * 2.0**-30 * loss_scale).backward()  # type: ignore[no-untyped-call]
        return torch.zeros(7)

    scale.without_overflow([number], compute)
    assert number.grad == torch.tensor(2.0**-30)
    compute(1.0)
    assert number.grad == torch.tensor(2.0**-30)  # without the scale nothing is added


def test_a_gradient_that_overflows_is_computed_again_with_half_the_scale() -> None:
    scale = LossScale(torch.float16)
    assert gradient(scale, 4.0) == (torch.tensor(4.0), [2.0**16, 2.0**15, 2.0**14, 2.0**13])
    assert scale.value == 2.0**13
    assert gradient(scale, 4.0) == (torch.tensor(4.0), [2.0**13])


def test_it_is_doubled_again_after_steps_without_overflow() -> None:
    """Up to where it began; a step that overflows begins the count anew, and a checkpoint has it."""
    scale = LossScale(torch.float16, 2.0**15, clean_steps=1998)
    gradient(scale, 1.0)
    assert (scale.value, scale.clean_steps) == (2.0**15, 1999)
    gradient(scale, 4.0)
    assert (scale.value, scale.clean_steps) == (2.0**13, 1)
    number = torch.nn.Parameter(torch.ones(()))

    def compute(loss_scale: float) -> torch.Tensor:
        number.grad = torch.full((), 0.25 * loss_scale)
        return torch.zeros(7)

    for _ in range(4 * 2000):
        scale.without_overflow([number], compute)
    assert scale.value == 2.0**16


def test_a_loss_that_is_no_number_is_not_computed_again() -> None:
    """It has no scale, so a smaller one wouldn't mend it."""
    scale, number, tried = LossScale(torch.float16), torch.nn.Parameter(torch.ones(())), []

    def compute(loss_scale: float) -> torch.Tensor:
        tried.append(loss_scale)
        (number * float("nan")).backward()  # type: ignore[no-untyped-call]
        return torch.tensor([float("inf"), 0.0])

    assert scale.without_overflow([number], compute).isinf().any()
    assert number.grad is not None
    assert number.grad.isnan()
    assert (tried, scale.value, scale.clean_steps) == ([2.0**16], 2.0**16, 0)


def test_one_that_is_no_number_stays_for_others_to_see() -> None:
    found, tried = gradient(LossScale(torch.float16, 4.0), float("nan"))
    assert found.isnan()
    assert tried == [4.0, 2.0, 1.0]


def test_a_run_in_float16_learns_what_one_in_float32_does(tiny_model_folder: Path, tmp_path: Path) -> None:
    exact = Trainee(tiny_model_folder, tmp_path / "float32")
    exact.train()
    half = Trainee(tiny_model_folder, tmp_path / "float16", config_of(precision="float16"))
    half.train(load_causal_lm(tiny_model_folder, CPU, torch.float16))
    assert half.losses == pytest.approx(exact.losses, rel=2e-3)
    assert half.state.loss_scale == 2.0**16
    assert half.state.loss_scale_clean_steps == half.state.steps_done
    assert exact.state.loss_scale is None


def test_a_base_model_that_overflows_is_told_the_way_out(tiny_model_folder: Path, tmp_path: Path) -> None:
    base = load_causal_lm(tiny_model_folder, CPU, torch.float16)
    base.get_input_embeddings().weight.data.fill_(6e4)
    run = Trainee(tiny_model_folder, tmp_path / "run", config_of(precision="float16"))
    with pytest.raises(TrainingError, match="or set precision=float32, since this run computes in float16") as error:
        run.train(base)
    assert error.value.reason is FailureReason.DIVERGED
