from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.mismatched import mismatched, parts_of
from sienn_ray.training.loss.unpaired import UnpairedObjective
from sienn_ray.training.rewards import RewardSums
from tests.unit.training.loss.test_objectives import PAIRS, Policy, gradients

BETA, DESIRABLE, UNDESIRABLE = 0.4, 1.5, 0.5
# Answers of all pairs by themselves, the rejected ones undesirable.
ANSWERS = [Example((row,), is_desirable=side == 0) for pair in PAIRS for side, row in enumerate(pair.rows)]


class Answers(Policy):
    def __init__(self, *, is_packed: bool = True) -> None:
        super().__init__(is_packed=is_packed)
        self.objective = UnpairedObjective(self.scorer, self.reference, BETA, DESIRABLE, UNDESIRABLE)

    def log_ratios(self, examples: Sequence[Example]) -> torch.Tensor:
        """Each row alone, by the twin."""
        found = []
        for (row,), _ in examples:
            with torch.no_grad(), self.twin.disable_adapter():
                reference = self.row_log_prob(row)
            found.append(self.row_log_prob(row) - reference)
        return torch.stack(found)

    def direct_loss(self, examples: Sequence[Example], baseline: float) -> torch.Tensor:  # type: ignore[override]
        losses = []
        for log_ratio, example in zip(self.log_ratios(examples), examples, strict=True):
            if example.is_desirable:
                losses.append(DESIRABLE * (1 - torch.sigmoid(BETA * (log_ratio - baseline))))
            else:
                losses.append(UNDESIRABLE * (1 - torch.sigmoid(BETA * (baseline - log_ratio))))
        return torch.stack(losses).sum()


@pytest.fixture(params=["packed", "padded"])
def answers(request: pytest.FixtureRequest) -> Answers:
    return Answers(is_packed=request.param == "packed")


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_loss_and_gradients_are_equation_8_of_the_paper(answers: Answers, baseline: float) -> None:
    answers.objective.baseline = baseline
    loss = answers.objective.sums(answers.objective.collate(ANSWERS)).loss
    expected = answers.direct_loss(ANSWERS, baseline)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    pairs = zip(gradients(answers.adapter, loss), gradients(answers.twin, expected), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_it_is_a_sum_over_answers(answers: Answers) -> None:
    whole = answers.objective.sums(answers.objective.collate(ANSWERS))
    parts = [answers.objective.sums(answers.objective.collate([example])) for example in ANSWERS]
    torch.testing.assert_close(torch.stack([part.loss for part in parts]).sum(), whole.loss, rtol=1e-4, atol=1e-4)
    rewards = torch.stack([part.rewards for part in parts if part.rewards is not None]).sum(0)
    torch.testing.assert_close(rewards, whole.rewards, rtol=1e-4, atol=1e-4)


def test_rewards_are_means_over_each_label(answers: Answers) -> None:
    numbers = answers.objective.sums(answers.objective.collate(ANSWERS)).rewards
    assert numbers is not None
    rewards = RewardSums(*numbers.tolist()).means()
    assert rewards is not None
    ratios = BETA * answers.log_ratios(ANSWERS).detach()
    assert rewards.chosen == pytest.approx(float(ratios[::2].mean()), rel=1e-4)
    assert rewards.rejected == pytest.approx(float(ratios[1::2].mean()), rel=1e-4)
    assert rewards.margins == pytest.approx(float((ratios[::2] - ratios[1::2]).mean()), rel=1e-3)
    assert rewards.accuracies is None


def test_at_the_start_nothing_is_learned_yet(answers: Answers) -> None:
    with answers.objective.at_start():
        sums = answers.objective.sums(answers.objective.collate(ANSWERS))
        assert answers.objective.log_ratio_sum(answers.objective.collate(ANSWERS)) == 0.0
    assert float(sums.loss) == pytest.approx(5 * 0.5 * (DESIRABLE + UNDESIRABLE))


def test_the_baseline_s_log_ratios_have_no_gradient(answers: Answers) -> None:
    others = mismatched([parts_of(each) for each in ANSWERS], [parts_of(each) for each in ANSWERS], 64)
    expected = answers.log_ratios(others).detach().sum()
    found = answers.objective.log_ratio_sum(answers.objective.collate(others))
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
    assert all(parameter.grad is None for parameter in answers.adapter.parameters())
    assert not math.isclose(float(expected), 0.0, abs_tol=0.01)
