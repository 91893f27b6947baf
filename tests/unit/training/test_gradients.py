"""Gradients don't depend on how a step is divided into micro batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.training.adapter.adapters import trainable
from sienn_ray.training.preparation import Learner, prepare
from sienn_ray.training.step_loss import StepLoss
from sienn_ray.training.steps import StepPlan
from tests.support.architectures import random_model
from tests.support.fakes_training import FakeWorker
from tests.unit.training.training import config_of, labelled, preferences, row

KINDS = {"sft": RowKind.CONVERSATION, "dpo": RowKind.PREFERENCE, "kto": RowKind.UNPAIRED_PREFERENCE}
ROWS: dict[str, Any] = {
    "sft": [row(number) for number in range(8)],
    "dpo": preferences(range(4)),
    "kto": labelled(range(8)),
}


def learner_of(architecture: str, method: str, folder: Path, **options: Any) -> Learner:
    """An adapter that has learned something, always the same."""
    config = config_of(method=method, batch_size=8, **options)
    base = random_model(architecture)
    plan = StepPlan.of(config, 1, 8)
    learner = prepare(base, config, FakeWorker(folder), plan, pad_token_id=0, row_kind=KINDS[method])
    torch.manual_seed(3)
    for parameter in trainable(learner.adapter):
        parameter.data.normal_(std=0.1)
    return learner


def step_of(learner: Learner, method: str) -> tuple[StepLoss, list[torch.Tensor], int]:
    """A step's loss, its gradients, and how many micro batches it has."""
    parameters = trainable(learner.adapter)
    step = learner.collator.step([TokenArrays(*each) for each in ROWS[method]])
    loss, _ = learner.gradients.accumulate(parameters, step).read(None)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    assert len(gradients) == len(parameters)
    return loss, gradients, len(step.micro_batches)


# Rows of the second can't be packed.
@pytest.mark.parametrize("architecture", ["llama", "bloom"])
@pytest.mark.parametrize("method", KINDS)
def test_any_budget_gives_the_gradients_of_one_batch(architecture: str, method: str, tmp_path: Path) -> None:
    """To 1e-5 of the largest, in float32."""
    whole, expected, num = step_of(learner_of(architecture, method, tmp_path), method)
    assert num == 1
    assert (whole.rewards.num_chosen > 0) == (method != "sft")
    for max_tokens in (1, 25, 60):
        loss, found, num = step_of(learner_of(architecture, method, tmp_path, micro_batch_tokens=max_tokens), method)
        assert num > 1
        assert loss.mean == pytest.approx(whole.mean, rel=1e-5)
        assert (loss.weight, loss.num_tokens) == (whole.weight, whole.num_tokens)
        assert loss.rewards == pytest.approx(whole.rewards, rel=1e-4, abs=1e-6)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_steps_that_were_collated_before_memory_ran_out_are_divided_anew(tmp_path: Path) -> None:
    learner = learner_of("llama", "sft", tmp_path)
    step = learner.collator.step([TokenArrays(*each) for each in ROWS["sft"]])
    assert learner.collator.renewed(step) is step
    learner.collator.lower(30)
    renewed = learner.collator.renewed(step)
    assert (len(step.micro_batches), len(renewed.micro_batches)) == (1, 3)
    assert (renewed.examples, renewed.weight, renewed.counts) == (step.examples, step.weight, step.counts)


def test_a_step_without_rows_has_no_loss(tmp_path: Path) -> None:
    learner = learner_of("llama", "sft", tmp_path)
    step = learner.collator.step([TokenArrays([], [], num_over=3)])
    loss, norm = learner.gradients.accumulate(trainable(learner.adapter), step).read(None)
    assert (loss.weight, loss.num_tokens, norm, step.counts.num_dropped) == (0, 0, 0.0, 1)
    assert loss.mean != loss.mean
