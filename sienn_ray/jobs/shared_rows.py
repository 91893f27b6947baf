"""Rows that datasets of one job have in common, as far as their records tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from sienn_ray.jobs.schema import DatasetRecord


def shared_rows_words(trained: Sequence[DatasetRecord], validation: DatasetRecord | None = None) -> list[str]:
    """Return warnings of rows that are trained on and evaluated on, or met more often than their weight says.

    Args:
        trained: Datasets that the job trains on.
        validation: The one that it evaluates on, if that is one of its own.
    """
    found = []
    for one, other in combinations(trained, 2):
        if why := _relation(one, other):
            found.append(f"datasets {one.id} and {other.id} {why}; what both have is met by both weights")
    for one in trained if validation is not None else ():
        if validation is not None and (why := _relation(validation, one)):
            found.append(
                f"validation dataset {validation.id} and dataset {one.id}, which is trained on, {why}; a loss on rows "
                "that were learned says nothing of others, so evaluate on rows of their own, or leave the validation "
                "dataset out and set validation_split"
            )
    return found


def _relation(one: DatasetRecord, other: DatasetRecord) -> str | None:
    if one.sha256 == other.sha256:
        return "are the same file"
    if one.first_version_id == other.first_version_id:
        return f"are versions {one.version} and {other.version} of one dataset"
    return None
