"""Training methods: the names of the losses, as they stand in requests, in records and on model cards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.training.config import MethodName


class Method(StrEnum):
    """Name of a loss; hyperparameters that only this loss reads begin with it, such as `dpo_beta`."""

    SFT = "sft"
    DPO = "dpo"
    IPO = "ipo"
    KTO = "kto"
    ORPO = "orpo"
    SIMPO = "simpo"

    def owns(self, hyperparameter: str) -> bool:
        """Return whether no other loss reads this field of `TrainingConfig`."""
        return hyperparameter.startswith(f"{self}_")

    @property
    def has_rewards(self) -> bool:
        """Return whether it learns which answers are better, rather than what answers are."""
        return self is not Method.SFT

    @property
    def has_reference(self) -> bool:
        """Return whether its rewards are relative to the model that the run starts from."""
        return self in {Method.DPO, Method.IPO, Method.KTO}


def methods_for(row_kind: RowKind) -> tuple[Method, ...]:
    """Return the methods that learn from a kind of rows, the default one first."""
    match row_kind:
        case RowKind.CONVERSATION | RowKind.TEXT:
            return (Method.SFT,)
        case RowKind.PREFERENCE:
            return (Method.DPO, Method.IPO, Method.KTO, Method.ORPO, Method.SIMPO)
        case RowKind.UNPAIRED_PREFERENCE:
            return (Method.KTO,)
        case _:
            assert_never(row_kind)


def method_of(row_kind: RowKind, wanted: MethodName = "auto") -> Method:
    """Choose the method of a run.

    Args:
        row_kind: The rows that it learns from.
        wanted: The method that was asked for; `auto` takes the rows' own.

    Raises:
        InvalidDatasetError: Such rows can't be learned from by this method.
    """
    possible = methods_for(row_kind)
    if wanted == "auto":
        return possible[0]
    if wanted in possible:
        return Method(wanted)
    kinds = " or ".join(kind.plural for kind in RowKind if wanted in methods_for(kind))
    others = " or ".join(f"method={method}" for method in possible)
    raise InvalidDatasetError(
        f"method={wanted} learns from {kinds}, and the dataset has {row_kind.plural}; choose another dataset, or "
        f"{others}, or leave method out"
    )


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
        case Method.IPO:
            return MethodWords("identity preference optimization (IPO)", "IPO's mean loss per pair of answers")
        case Method.KTO:
            return MethodWords("Kahneman-Tversky optimization (KTO)", "KTO's mean loss per answer")
        case Method.ORPO:
            return MethodWords(
                "odds ratio preference optimization (ORPO)",
                "ORPO's mean loss per pair of answers: the chosen one's likelihood per token, and their odds ratio",
            )
        case Method.SIMPO:
            return MethodWords("simple preference optimization (SimPO)", "SimPO's mean loss per pair of answers")
        case _:
            assert_never(method)
