from __future__ import annotations

from sienn_ray.training.rewards import NO_REWARDS, Rewards, RewardSums


def test_means_are_those_of_all_answers() -> None:
    first = RewardSums(chosen=1.0, rejected=-1.0, num_chosen=2, num_rejected=2, num_right=1, num_pairs=2)
    second = RewardSums(chosen=0.5, rejected=0.25, num_chosen=1, num_rejected=1, num_right=1, num_pairs=1)
    assert first.plus(second).means() == Rewards(chosen=0.5, rejected=-0.25, margins=0.75, accuracies=2 / 3)


def test_of_no_answers_there_are_none() -> None:
    assert NO_REWARDS.means() is None
    assert RewardSums(chosen=1.0, num_chosen=2).means() == Rewards(chosen=0.5)


def test_names_are_those_of_reports() -> None:
    rewards = Rewards(chosen=0.123456, rejected=None, margins=0.0, accuracies=1.0).rounded()
    assert rewards.named("eval_") == {
        "eval_rewards_chosen": 0.12346,
        "eval_rewards_margins": 0.0,
        "eval_rewards_accuracies": 1.0,
    }
