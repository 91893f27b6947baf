"""Losses over pairs of a chosen and a rejected answer, as functions of their log-probabilities.

Each gives a loss and two rewards for a pair, so all else, from packing to reports, is the same for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.training.methods import Method


@dataclass(frozen=True)
class PairScores:
    """Log-probabilities of pairs in nats; the first column is of chosen answers, the second of rejected ones.

    Args:
        policy: (pairs, 2); of whole answers, with gradient.
        reference: (pairs, 2); the same under the model that the run starts from; zeros for a loss without a reference.
        num_tokens: (pairs, 2); tokens of the answers.
    """

    policy: torch.Tensor
    reference: torch.Tensor
    num_tokens: torch.Tensor

    @property
    def log_ratios(self) -> torch.Tensor:
        """(pairs, 2); how much likelier the answers have become."""
        return self.policy - self.reference

    @property
    def per_token(self) -> torch.Tensor:
        """(pairs, 2); the policy's mean over tokens."""
        return self.policy / self.num_tokens


class PairLoss(Protocol):
    """A loss over pairs.

    Attributes:
        name: The method that it is the loss of.
    """

    name: Method

    def losses(self, scores: PairScores) -> torch.Tensor:
        """(pairs,); loss of each pair."""
        ...

    def rewards(self, scores: PairScores) -> torch.Tensor:
        """(pairs, 2); rewards of the answers."""
        ...


class DpoLoss:
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    With label smoothing it is the conservative DPO of E. Mitchell, "A note on DPO with noisy preferences & relationship
    to IPO" (2023), equation 3.

    Args:
        beta: How much a departure from the reference costs.
        label_smoothing: Share of pairs that are expected to be the wrong way around.
    """

    name = Method.DPO

    def __init__(self, beta: float, label_smoothing: float = 0.0) -> None:
        self._beta = beta
        self._label_smoothing = label_smoothing

    def losses(self, scores: PairScores) -> torch.Tensor:
        """-(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m), where m is the difference of log-ratios."""
        margins = self._beta * _difference(scores.log_ratios)
        losses = -F.logsigmoid(margins)
        if not self._label_smoothing:
            return losses
        return losses * (1 - self._label_smoothing) - F.logsigmoid(-margins) * self._label_smoothing

    def rewards(self, scores: PairScores) -> torch.Tensor:
        """Beta times log-ratios."""
        return self._beta * scores.log_ratios


class IpoLoss:
    """Identity preference optimization (Azar et al. 2023, arXiv:2310.12036, equation 17).

    Log-ratios are per token of their answers, as in TRL, whose authors have it from the paper's: sums over tokens would
    have the loss grow with the square of their number.

    Args:
        beta: The paper's tau.
    """

    name = Method.IPO

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def losses(self, scores: PairScores) -> torch.Tensor:
        """(m - 1 / (2 beta))^2, where m is the difference of log-ratios per token."""
        return (_difference(scores.log_ratios / scores.num_tokens) - 1 / (2 * self._beta)) ** 2

    def rewards(self, scores: PairScores) -> torch.Tensor:
        """Beta times log-ratios of whole answers, as TRL reports them."""
        return self._beta * scores.log_ratios


class OrpoLoss:
    """Odds ratio preference optimization (Hong et al. 2024, arXiv:2403.07691, equations 6 and 7).

    The paper's likelihood of an answer is the geometric mean over its tokens (equation 1). As there, the first part
    of the loss is over the chosen answer; TRL has the prompt's tokens in it as well.

    Args:
        weight: The paper's lambda.
    """

    name = Method.ORPO

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def losses(self, scores: PairScores) -> torch.Tensor:
        """-log p(chosen) - lambda log sigmoid(log odds(chosen) - log odds(rejected))."""
        log_odds = _difference(scores.per_token - _log_of_rest(scores.per_token))
        return -scores.per_token[:, 0] - self._weight * F.logsigmoid(log_odds)

    def rewards(self, scores: PairScores) -> torch.Tensor:
        """Lambda times log-probabilities per token."""
        return self._weight * scores.per_token


class SimpoLoss:
    """Simple preference optimization (Meng et al. 2024, arXiv:2405.14734, equation 6).

    Args:
        beta: Scale of the rewards.
        gamma_beta_ratio: The target margin over beta.
    """

    name = Method.SIMPO

    def __init__(self, beta: float, gamma_beta_ratio: float) -> None:
        self._beta = beta
        self._gamma = beta * gamma_beta_ratio

    def losses(self, scores: PairScores) -> torch.Tensor:
        """-log sigmoid(beta (log p(chosen) - log p(rejected)) - gamma), per token of each."""
        return -F.logsigmoid(_difference(self.rewards(scores)) - self._gamma)

    def rewards(self, scores: PairScores) -> torch.Tensor:
        """Beta times log-probabilities per token."""
        return self._beta * scores.per_token


def _difference(values: torch.Tensor) -> torch.Tensor:
    """(pairs, 2) to (pairs,); the first column minus the second."""
    return values[:, 0] - values[:, 1]


def _log_of_rest(log_probs: torch.Tensor) -> torch.Tensor:
    """log(1 - p) of log p, exact at both ends (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").

    A probability of 1 counts as the largest below it, so that its odds are finite.
    """
    below = log_probs.clamp(max=-torch.finfo(log_probs.dtype).eps)
    is_near = below > -0.6931
    # Each side gets values of its own, since the other formula's gradients there are infinite.
    near = torch.log(-torch.expm1(torch.where(is_near, below, -0.5)))
    far = torch.log1p(-torch.exp(torch.where(is_near, -1.0, below)))
    return torch.where(is_near, near, far)
