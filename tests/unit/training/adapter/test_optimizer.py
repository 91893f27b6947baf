from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from sienn_ray.training.adapter.adapters import add_adapter, make_optimizer, trainable
from tests.support.architectures import random_model
from tests.unit.training.adapter.test_fused_lora import IDS, config_of, with_noise


def stepped(optimizer: torch.optim.Optimizer, model: Any) -> torch.optim.Optimizer:
    model(input_ids=IDS).logits.pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("was_fused", [True, False])
@pytest.mark.parametrize("ratio", [None, 4.0])
def test_a_checkpoint_goes_on_with_the_kernel_of_its_new_device(was_fused: bool, ratio: float | None) -> None:
    """PyTorch's optimizers would go on with the one that wrote the state, and count their steps where it did."""
    config = config_of(loraplus_lr_ratio=ratio)
    model = with_noise(add_adapter(random_model("llama"), config))
    first, second = make_optimizer(model, config), make_optimizer(copy.deepcopy(model), config)
    for optimizer, is_fused in ((first, was_fused), (second, not was_fused)):
        for group in optimizer.param_groups:
            group["fused"] = is_fused
    stepped(first, model)
    second.load_state_dict(first.state_dict())
    assert {group["fused"] for group in second.param_groups} == {not was_fused}
    assert [group["lr"] for group in second.param_groups] == [group["lr"] for group in first.param_groups]
    states = zip(first.state_dict()["state"].values(), second.state_dict()["state"].values(), strict=True)
    assert all(torch.equal(ours[name], theirs[name]) for ours, theirs in states for name in ours)


def test_on_a_cpu_adamw_is_what_it_was() -> None:
    model = add_adapter(random_model("llama"), config_of())
    optimizer = make_optimizer(model, config_of())
    assert [group["fused"] for group in optimizer.param_groups] == [None]
    assert [parameter for group in optimizer.param_groups for parameter in group["params"]] == trainable(model)
