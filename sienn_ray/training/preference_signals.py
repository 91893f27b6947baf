"""Signs that a run learns nothing from preferences, as warnings while it goes on."""

from __future__ import annotations

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.methods import Method
from sienn_ray.training.rewards import RewardSums

# A mean margin below this after an epoch is noise: DPO's first steps at a fitting learning rate give more.
_MIN_MARGIN = 1e-3
# Ethayarajh et al. 2024 (arXiv:2402.01306, section 4.1) want the weighted labels between 1:1 and 4:3; this is far off.
_MAX_LABEL_RATIO = 3.0


class PreferenceSignals:
    """Finds what is wrong with a run by its rewards.

    Args:
        method: What is learned by.
        config: Hyperparameters, for messages.
    """

    def __init__(self, method: Method, config: TrainingConfig) -> None:
        self._method = method
        self._config = config

    def warnings(self, sums: RewardSums, epoch: int, num_epochs: int) -> list[str]:
        """Return what a user should know of at the end of an epoch.

        Args:
            sums: Rewards of the epoch.
            epoch: 1-based.
            num_epochs: Of the whole run.
        """
        if self._method is Method.KTO and epoch == 1 and (words := self._of_labels(sums)):
            return [words]
        rewards = sums.means()
        if rewards is None or rewards.margins is None or not self._method.has_reference or epoch < num_epochs:
            return []
        if abs(rewards.margins) >= _MIN_MARGIN:
            return []
        return [
            f"the margin between rewards of chosen and rejected answers was {rewards.margins:.5f} in epoch {epoch}, "
            f"the last one: the run has learned no preference; raise learning_rate (now "
            f"{self._config.learning_rate:g}) or num_epochs (now {num_epochs}), and look whether the answers differ in "
            "what you want to be learned"
        ]

    def _of_labels(self, sums: RewardSums) -> str | None:
        desirable, undesirable = int(sums.num_chosen), int(sums.num_rejected)
        if not desirable or not undesirable:
            there, missing = ("undesirable", "desirable") if not desirable else ("desirable", "undesirable")
            return (
                f"all {desirable + undesirable} answers are labelled {there}, so KTO has nothing to compare them with; "
                f"add answers that are {missing}"
            )
        weights = (self._config.kto_desirable_weight, self._config.kto_undesirable_weight)
        ratio = weights[0] * desirable / (weights[1] * undesirable)
        if 1 / _MAX_LABEL_RATIO <= ratio <= _MAX_LABEL_RATIO:
            return None
        rarer = "kto_desirable_weight" if ratio < 1 else "kto_undesirable_weight"
        wanted = weights[1] * undesirable / desirable if ratio < 1 else weights[0] * desirable / undesirable
        return (
            f"{desirable} answers are desirable and {undesirable} undesirable, so one side hardly counts; KTO's "
            f"authors advise to weigh them alike, here by {rarer}={wanted:.3g}"
        )
