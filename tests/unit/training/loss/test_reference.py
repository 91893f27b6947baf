from __future__ import annotations

import pytest
import torch

from sienn_ray.training.adapter.adapters import trainable
from sienn_ray.training.loss.objectives import PairObjective
from sienn_ray.training.loss.pair_losses import DpoLoss, SimpoLoss
from sienn_ray.training.loss.reference import Reference, start_values
from tests.unit.training.loss.test_objectives import PAIRS, Policy


class Continued(Policy):
    """A policy that has gone on from an adapter; the twin still is that adapter."""

    def __init__(self, *, use_dora: bool = False, dropout: float = 0.0) -> None:
        super().__init__(is_packed=not use_dora, use_dora=use_dora, dropout=dropout)
        self.start = start_values(self.adapter)
        with torch.no_grad():
            for number, parameter in enumerate(trainable(self.adapter)):
                parameter.add_(0.05 * (number % 3 - 1))
        self.started = Reference(self.adapter, self.start)
        self.objective = PairObjective(DpoLoss(0.3), self.scorer, self.started)


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_reference_is_the_model_with_the_start_adapter(use_dora: bool) -> None:
    policy = Continued(use_dora=use_dora)
    with torch.no_grad():
        expected = torch.stack([policy.row_log_prob(row) for pair in PAIRS for row in pair.rows])
        found = policy.objective.scores(policy.objective.collate(PAIRS)).reference.flatten()
        bare = policy.preference.scores(policy.objective.collate(PAIRS)).reference.flatten()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float((found - bare).abs().max()) > 0.1


@pytest.mark.parametrize("use_dora", [False, True])
def test_dropout_leaves_the_reference_alone_and_stays_the_policy_s(use_dora: bool) -> None:
    policy = Continued(use_dora=use_dora, dropout=0.5)
    policy.adapter.train()
    dropouts = [module for module in policy.adapter.modules() if isinstance(module, torch.nn.Dropout)]
    before = [module.training for module in dropouts]
    with torch.no_grad():
        expected = torch.stack([policy.row_log_prob(row) for pair in PAIRS for row in pair.rows])
        found = policy.objective.scores(policy.objective.collate(PAIRS))
    torch.testing.assert_close(found.reference.flatten(), expected, rtol=1e-4, atol=1e-4)
    assert [module.training for module in dropouts] == before
    assert any(before)


def test_the_policy_s_weights_come_back_as_they_were() -> None:
    policy = Continued()
    before = [parameter.detach().clone() for parameter in trainable(policy.adapter)]
    with pytest.raises(KeyError), policy.started.active():
        raise KeyError
    assert all(torch.equal(one, two) for one, two in zip(trainable(policy.adapter), before, strict=True))


def test_gradients_are_the_policy_s() -> None:
    policy = Continued()
    loss = policy.objective.sums(policy.objective.collate(PAIRS)).loss
    found = torch.autograd.grad(loss, trainable(policy.adapter))
    assert all(float(gradient.abs().max()) > 0 for gradient in found)
    reference = policy.objective.scores(policy.objective.collate(PAIRS)).reference
    assert not reference.requires_grad


def test_at_the_start_there_is_no_margin() -> None:
    policy = Policy()
    objective = PairObjective(DpoLoss(0.3), policy.scorer, Reference(policy.adapter, start_values(policy.adapter)))
    log_ratios = objective.scores(objective.collate(PAIRS)).log_ratios.detach()
    assert float(log_ratios.abs().max()) < 1e-3
    assert float(policy.margins(PAIRS).detach().abs().max()) > 0.1  # beside the bare base model


def test_losses_without_a_reference_are_evaluated_at_the_start_adapter() -> None:
    policy = Continued()
    objective = PairObjective(SimpoLoss(2.0, 0.5), policy.scorer, policy.started)
    with objective.at_start(), torch.no_grad():
        found = objective.scores(objective.collate(PAIRS)).policy.flatten()
        expected = torch.stack([policy.row_log_prob(row) for pair in PAIRS for row in pair.rows])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
