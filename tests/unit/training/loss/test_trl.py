"""Losses and rewards beside those of TRL's trainers, on the same batch and the same model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.mismatched import mismatched, parts_of
from sienn_ray.training.loss.objectives import make_objective
from sienn_ray.training.loss.pair_losses import DpoLoss, PairScores
from sienn_ray.training.methods import Method
from sienn_ray.training.rewards import RewardSums
from tests.support import trl_losses
from tests.unit.training.loss.test_objectives import PAIRS, Policy, row
from tests.unit.training.training import EOS

CONFIG = TrainingConfig(
    base_model="m",
    dpo_beta=0.3,
    ipo_beta=0.2,
    kto_beta=0.4,
    kto_desirable_weight=1.3,
    kto_undesirable_weight=0.7,
    orpo_lambda=0.5,
    simpo_beta=2.5,
    simpo_gamma_beta_ratio=0.4,
)
CHOSEN: Any = [pair.rows[0] for pair in PAIRS]
REJECTED: Any = [pair.rows[1] for pair in PAIRS]
# Chosen answers of one length, so that TRL's mean over tokens is the paper's over answers, and prompts of one token,
# which TRL's first part of ORPO would count besides.
EVEN = [
    Example((row([number], [60 + number, 70, 80, EOS]), row([number], [90 + number] * (2 + number) + [EOS])))
    for number in range(3, 7)
]


class Sides(Policy):
    """The twin's logits with and without its adapter, as TRL's trainers ask for them."""

    def policy(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.twin(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits

    def base(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        with self.twin.disable_adapter():
            return self.policy(input_ids, attention_mask)

    def mean(self, method: Method, examples: list[Example], baseline: float = 0.0) -> tuple[float, dict[str, float]]:
        objective = make_objective(method, self.scorer, self.reference, CONFIG)
        objective.baseline = baseline
        sums = objective.sums(objective.collate(examples))
        assert sums.rewards is not None
        rewards = RewardSums(*sums.rewards.tolist()).means()
        assert rewards is not None
        named = {name.replace("_", "/"): value for name, value in rewards.named().items()}
        return float(sums.loss.detach()) / objective.weight(examples), named


@pytest.fixture(scope="module")
def sides() -> Sides:
    return Sides()


def check(ours: tuple[float, dict[str, float]], theirs: tuple[torch.Tensor, dict[str, float]]) -> None:
    loss, metrics = theirs
    assert ours[0] == pytest.approx(float(loss.detach()), rel=1e-4)
    rewards = {name: value for name, value in metrics.items() if name.startswith("rewards/")}
    assert ours[1] == pytest.approx(rewards, rel=1e-3, abs=1e-4)
    assert len(rewards) > 2
    assert abs(rewards["rewards/margins"]) > 0.01


def test_dpo(sides: Sides) -> None:
    theirs = trl_losses.dpo_trainer(sides.policy, sides.base, CHOSEN, REJECTED, beta=0.3, loss_types=["sigmoid"])
    check(sides.mean(Method.DPO, PAIRS), theirs)


def test_ipo(sides: Sides) -> None:
    theirs = trl_losses.dpo_trainer(sides.policy, sides.base, CHOSEN, REJECTED, beta=0.2, loss_types=["ipo"])
    check(sides.mean(Method.IPO, PAIRS), theirs)


def test_simpo(sides: Sides) -> None:
    options = {"beta": 2.5, "simpo_gamma": 1.0, "loss_type": "simpo", "alpha": 0.0, "cpo_alpha": 0.0}
    theirs = trl_losses.without_reference("cpo", sides.policy, CHOSEN, REJECTED, label_smoothing=0.0, **options)
    check(sides.mean(Method.SIMPO, PAIRS), theirs)


def test_orpo(sides: Sides) -> None:
    chosen, rejected = ([pair.rows[side] for pair in EVEN] for side in (0, 1))
    theirs = trl_losses.without_reference("orpo", sides.policy, chosen, rejected, beta=0.5)
    check(sides.mean(Method.ORPO, EVEN), theirs)


def test_kto_with_its_baseline(sides: Sides) -> None:
    answers = [Example((row,), is_desirable=side == 0) for pair in PAIRS for side, row in enumerate(pair.rows)]
    parts = [parts_of(answer) for answer in answers]
    others = mismatched(parts, parts, 64)
    assert len(others) == len(answers)
    options = {"beta": 0.4, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    theirs = trl_losses.kto_trainer(
        sides.policy,
        sides.base,
        [answer.rows[0] for answer in answers],
        [answer.is_desirable for answer in answers],
        [other.rows[0] for other in others],
        **options,
    )
    objective = make_objective(Method.KTO, sides.scorer, sides.reference, CONFIG)
    baseline = max(float(objective.log_ratio_sum(objective.collate(others))) / len(others), 0.0)
    assert baseline == pytest.approx(theirs[1]["kl"], rel=1e-3, abs=1e-5)
    check(sides.mean(Method.KTO, answers, baseline), theirs)


def test_conservative_dpo_is_the_smoothed_loss_of_log_ratios() -> None:
    scores = PairScores(torch.tensor([[-2.0, -1.0]]), torch.tensor([[-3.0, -0.8]]), torch.ones(1, 2))
    trainer = trl_losses.loss_of_cpo(beta=0.3, label_smoothing=0.2, loss_type="sigmoid")
    theirs = trainer(scores.log_ratios[:, 0], scores.log_ratios[:, 1])
    torch.testing.assert_close(DpoLoss(0.3, 0.2).losses(scores), theirs)
