"""Weights of datasets in a mixture, and the rows that an epoch has by them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sienn_ray.errors import InvalidInputError

MAX_WEIGHT = 100.0
# Each is read by every worker, with some of its row groups in memory.
MAX_DATASETS = 16
_MAX_SHOWN_CHARS = 40

Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT, allow_inf_nan=False)]


class WeightedDataset(BaseModel):
    """A dataset within a mixture.

    Args:
        dataset_id: Its id.
        weight: How often each of its rows is met in an epoch.
        version: Its version.
    """

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    weight: Weight = 1.0
    version: int = 1


def passes_and_choice(weight: float, num_rows: int) -> tuple[int, int]:
    """Divide a weight into whole passes over the rows of a dataset, and the number of rows that come once more.

    Example:
        >>> passes_and_choice(2.5, 10), passes_and_choice(0.25, 10), passes_and_choice(0.001, 10)
        ((2, 5), (0, 2), (0, 1))
    """
    num_passes = int(weight)
    num_chosen = round((weight - num_passes) * num_rows)
    return num_passes, num_chosen or (min(1, num_rows) if num_passes == 0 else 0)


def check_weight(dataset_id: str, weight: float, num_rows: int) -> None:
    """Refuse a weight that is so small that an epoch has no row of the dataset.

    Raises:
        InvalidInputError: It is.
    """
    if weight < 1 and round(weight * num_rows) == 0:
        raise InvalidInputError(
            f"weight {weight:g} of dataset {dataset_id} is less than one of its {num_rows} rows in an epoch; use "
            f"{max(1 / num_rows, 0.0001):.2g} or more, or leave the dataset out"
        )


def parsed_weight(text: str) -> float:
    """Read a weight that a person has typed.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not 0 < weight <= MAX_WEIGHT:  # not true of NaN either
        shown = repr(text[:_MAX_SHOWN_CHARS])
        raise InvalidInputError(f"weight {shown} must be a number above 0 and at most {MAX_WEIGHT:g}, as in 2 or 0.5")
    return weight
