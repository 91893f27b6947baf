"""Checks of the datasets that a fine-tune is asked for with."""

from __future__ import annotations

from dataclasses import dataclass

from sienn_ray.api.schemas.finetuning import StartFinetuningRequest
from sienn_ray.datasets.schema import RowKind, check_one_kind, check_same_kind
from sienn_ray.datasets.weights import check_weight
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.jobs.shared_rows import shared_rows_words
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.training.long_rows import check_kind


@dataclass(frozen=True)
class CheckedDatasets:
    """Datasets that can be trained on together.

    Args:
        row_kind: What their rows are.
        num_rows: Rows of an epoch, by their weights.
        warnings: What the user should know of them.
    """

    row_kind: RowKind
    num_rows: int
    warnings: list[str]


async def check_datasets(body: StartFinetuningRequest, tracker: Tracker) -> CheckedDatasets:
    """Refuse datasets that can't be trained on together, or evaluated on.

    Raises:
        NotFoundError: One isn't there.
        InvalidDatasetError: They hold different kinds of rows.
        InvalidInputError: A dataset is named twice, a weight is too small, or what is evaluated on is trained on.
    """
    ids = [each.dataset_id for each in body.trained_on]
    for number, dataset_id in enumerate(ids):
        if dataset_id in ids[:number]:
            raise InvalidInputError(f"datasets name '{dataset_id}' twice; name it once, with the sum of its weights")
    families = [await tracker.dataset_versions(each.dataset_id) for each in body.trained_on]
    records = [_of_id(family, dataset_id) for family, dataset_id in zip(families, ids, strict=True)]
    row_kind = check_one_kind({record.id: record.format for record in records})
    check_kind(body.long_rows, row_kind)
    for each, record in zip(body.trained_on, records, strict=True):
        check_weight(record.id, each.weight, record.num_rows)
    validation = None
    if body.validation_dataset_id is not None:
        validation = await _validation(
            body.validation_dataset_id, records, tracker, is_mixture=body.datasets is not None
        )
    newest = [family[-1] for family in families]
    num_rows = sum(round(each.weight * record.num_rows) for each, record in zip(body.trained_on, records, strict=True))
    warnings = [
        f"dataset {record.id} is version {record.version}, and version {last.version} is there: {last.id}"
        for record, last in zip(records, newest, strict=True)
        if last.version > record.version
    ]
    return CheckedDatasets(row_kind, num_rows, [*warnings, *shared_rows_words(records, validation)])


def _of_id(versions: list[DatasetRecord], dataset_id: str) -> DatasetRecord:
    return next(record for record in versions if record.id == dataset_id)


async def _validation(
    dataset_id: str, trained: list[DatasetRecord], tracker: Tracker, *, is_mixture: bool
) -> DatasetRecord:
    """Return what is evaluated on, if it can be."""
    if dataset_id in {record.id for record in trained}:
        where = "among datasets" if is_mixture else "dataset_id"
        raise InvalidInputError(
            f"validation_dataset_id is {where}; name another dataset, or leave it out and set validation_split"
        )
    validation = await tracker.dataset(dataset_id)
    check_same_kind(trained[0].format, validation.format)
    return validation
