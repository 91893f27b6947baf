"""Training methods: the names of the losses, as they stand in records and on model cards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import InvalidDatasetError


class Method(StrEnum):
    """Name of a loss; hyperparameters that only this loss reads begin with it, such as `dpo_beta`."""

    SFT = "sft"
    DPO = "dpo"

    def owns(self, hyperparameter: str) -> bool:
        """Return whether no other loss reads this field of `TrainingConfig`."""
        return hyperparameter.startswith(f"{self}_")


def method_of(row_kind: RowKind) -> Method:
    """Choose by what rows a run learns from."""
    match row_kind:
        case RowKind.CONVERSATION | RowKind.TEXT:
            return Method.SFT
        case RowKind.PREFERENCE:
            return Method.DPO
        case RowKind.UNPAIRED_PREFERENCE:
            raise InvalidDatasetError(
                "no loss learns from labelled answers; have the labels left out, or the bad answers"
            )
        case _:
            assert_never(row_kind)


@dataclass(frozen=True)
class MethodWords:
    """A method for people.

    Args:
        name: Its name in full.
        loss: What the numbers called loss are.
    """

    name: str
    loss: str


def words_of(method: Method) -> MethodWords:
    """Describe a method, for a model card."""
    match method:
        case Method.SFT:
            return MethodWords(
                "supervised fine-tuning",
                "the mean negative log-likelihood per token of what the model has to produce",
            )
        case Method.DPO:
            return MethodWords("direct preference optimization (DPO)", "DPO's mean loss per pair of answers")
        case _:
            assert_never(method)
