"""Each loss by its paper's formula, written out on numbers that can be followed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sienn_ray.training.loss.pair_losses import DpoLoss, IpoLoss, OrpoLoss, PairLoss, PairScores, SimpoLoss

# Two pairs: log-probabilities of chosen and rejected answers of 4 and 2, and of 1 and 5 tokens.
POLICY = torch.tensor([[-2.0, -1.0], [-0.5, -6.0]])
REFERENCE = torch.tensor([[-3.0, -0.8], [-0.9, -5.0]])
TOKENS = torch.tensor([[4, 2], [1, 5]])
SCORES = PairScores(POLICY, REFERENCE, TOKENS)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def values(loss: PairLoss, scores: PairScores = SCORES) -> list[float]:
    return [float(value) for value in loss.losses(scores)]


def test_dpo_is_equation_7() -> None:
    margins = [(-2.0 + 3.0) - (-1.0 + 0.8), (-0.5 + 0.9) - (-6.0 + 5.0)]
    assert values(DpoLoss(0.1)) == pytest.approx([-math.log(sigmoid(0.1 * margin)) for margin in margins])
    assert DpoLoss(0.1).rewards(SCORES).flatten().tolist() == pytest.approx([0.1, -0.02, 0.04, -0.1])


def test_dpo_with_label_smoothing_is_conservative() -> None:
    margins = [1.2, 1.4]
    expected = [-0.8 * math.log(sigmoid(0.5 * m)) - 0.2 * math.log(sigmoid(-0.5 * m)) for m in margins]
    assert values(DpoLoss(0.5, label_smoothing=0.2)) == pytest.approx(expected)


def test_ipo_is_equation_17_of_log_ratios_per_token() -> None:
    differences = [1.0 / 4 - -0.2 / 2, 0.4 / 1 - -1.0 / 5]
    assert values(IpoLoss(0.1)) == pytest.approx([(difference - 1 / (2 * 0.1)) ** 2 for difference in differences])
    assert IpoLoss(0.1).rewards(SCORES).flatten().tolist() == pytest.approx([0.1, -0.02, 0.04, -0.1])


def test_ipo_of_single_tokens_is_equation_17_as_it_stands() -> None:
    scores = PairScores(POLICY, REFERENCE, torch.ones(2, 2))
    assert values(IpoLoss(0.5), scores) == pytest.approx([(1.2 - 1) ** 2, (1.4 - 1) ** 2], rel=1e-5)


def test_orpo_is_equations_4_to_7() -> None:
    expected = []
    for policy, tokens in zip(POLICY.tolist(), TOKENS.tolist(), strict=True):
        chosen, rejected = (math.exp(log_prob / count) for log_prob, count in zip(policy, tokens, strict=True))
        ratio = (chosen / (1 - chosen)) / (rejected / (1 - rejected))
        expected.append(-math.log(chosen) - 0.3 * math.log(sigmoid(math.log(ratio))))
    assert values(OrpoLoss(0.3)) == pytest.approx(expected)
    assert OrpoLoss(0.3).rewards(SCORES).flatten().tolist() == pytest.approx([-0.15, -0.15, -0.15, -0.36])


@pytest.mark.parametrize("log_prob", [-1e-8, -1e-4, -0.6931, -0.6932, -30.0, -200.0])
def test_orpo_s_odds_are_finite_and_have_gradients_at_both_ends(log_prob: float) -> None:
    policy = torch.tensor([[log_prob, -1.0]], requires_grad=True)
    loss = OrpoLoss(1.0).losses(PairScores(policy, torch.zeros(1, 2), torch.ones(1, 2))).sum()
    (gradient,) = torch.autograd.grad(loss, policy)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[0, 0] < 0 < gradient[0, 1]


def test_orpo_of_certain_answers_is_finite() -> None:
    policy = torch.zeros(1, 2, requires_grad=True)
    loss = OrpoLoss(1.0).losses(PairScores(policy, torch.zeros(1, 2), torch.ones(1, 2))).sum()
    assert loss.isfinite()
    assert torch.autograd.grad(loss, policy)[0].isfinite().all()


def test_simpo_is_equation_6() -> None:
    differences = [-2.0 / 4 - -1.0 / 2, -0.5 / 1 - -6.0 / 5]
    expected = [-math.log(sigmoid(2.0 * difference - 2.0 * 0.3)) for difference in differences]
    assert values(SimpoLoss(2.0, gamma_beta_ratio=0.3)) == pytest.approx(expected)
    assert SimpoLoss(2.0, 0.3).rewards(SCORES).flatten().tolist() == pytest.approx([-1.0, -1.0, -1.0, -2.4])
