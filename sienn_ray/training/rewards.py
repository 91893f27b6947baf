"""Rewards of answers, as preferences are learned by them: sums that add up over batches and workers, and their means.

The definitions are TRL's: a reward is the loss's beta times the answer's log-probability, minus the reference's where
the loss has one; an accuracy is the share of pairs whose chosen answer has the higher reward; a margin is the mean
reward of chosen answers minus that of rejected ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Rewards:
    """Mean rewards over some answers; None of what there were none of.

    Args:
        chosen: Of chosen (or desirable) answers.
        rejected: Of rejected (or undesirable) answers.
        margins: The first minus the second.
        accuracies: Share of pairs whose chosen answer has the higher reward; None of answers that aren't paired.
    """

    chosen: float | None = None
    rejected: float | None = None
    margins: float | None = None
    accuracies: float | None = None

    def rounded(self) -> Rewards:
        """Return the same with five decimals: rewards of a first step are small."""
        values = (self.chosen, self.rejected, self.margins, self.accuracies)
        return Rewards(*(None if value is None else round(value, 5) for value in values))

    def named(self, prefix: str = "") -> dict[str, float]:
        """Return what is known by its name in reports, such as `rewards_margins`."""
        values = {
            "chosen": self.chosen,
            "rejected": self.rejected,
            "margins": self.margins,
            "accuracies": self.accuracies,
        }
        return {f"{prefix}rewards_{name}": value for name, value in values.items() if value is not None}


class RewardSums(NamedTuple):
    """Sums over some answers.

    Args:
        chosen: Rewards of chosen answers.
        rejected: Rewards of rejected answers.
        num_chosen: Chosen answers.
        num_rejected: Rejected answers.
        num_right: Pairs whose chosen answer has the higher reward.
        num_pairs: Pairs.
    """

    chosen: float = 0.0
    rejected: float = 0.0
    num_chosen: float = 0.0
    num_rejected: float = 0.0
    num_right: float = 0.0
    num_pairs: float = 0.0

    def plus(self, other: RewardSums) -> RewardSums:
        """Return the sums over the answers of both."""
        return RewardSums(*(one + two for one, two in zip(self, other, strict=True)))

    def means(self) -> Rewards | None:
        """Return the means, or None of no answers.

        Example:
            >>> RewardSums(chosen=0.5, rejected=-0.25, num_chosen=2, num_rejected=1).means()
            Rewards(chosen=0.25, rejected=-0.25, margins=0.5, accuracies=None)
        """
        if not self.num_chosen and not self.num_rejected:
            return None
        chosen = self.chosen / self.num_chosen if self.num_chosen else None
        rejected = self.rejected / self.num_rejected if self.num_rejected else None
        margins = None if chosen is None or rejected is None else chosen - rejected
        return Rewards(chosen, rejected, margins, self.num_right / self.num_pairs if self.num_pairs else None)


NO_REWARDS = RewardSums()
