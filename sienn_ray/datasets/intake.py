"""Take a dataset file into storage: the file as it came, and its checked rows beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any, cast

from sienn_ray.datasets.ingest import IngestReport, ingest
from sienn_ray.storage import Storage, copy_hashed


@dataclass(frozen=True)
class TakenDataset:
    """A dataset that is in storage, checked."""

    size_bytes: int
    sha256: str
    report: IngestReport


def folder_key(dataset_id: str) -> str:
    """Storage key of everything that belongs to a dataset."""
    return f"datasets/{dataset_id}"


def file_key(dataset_id: str) -> str:
    """Storage key of the file as it came. The user's file name has no part in it."""
    return f"{folder_key(dataset_id)}/file"


def rows_key(dataset_id: str) -> str:
    """Storage key of the checked rows, as Parquet."""
    return f"{folder_key(dataset_id)}/rows.parquet"


def check_rows(storage: Storage, dataset_id: str, filename: str, *, max_row_bytes: int) -> IngestReport:
    """Check a file that is in storage and write its rows beside it; takes as long as reading the file takes.

    Raises:
        InvalidDatasetError: The file isn't a dataset.
    """
    with storage.reading(file_key(dataset_id)) as source, storage.writing(rows_key(dataset_id)) as sink:
        return ingest(cast(Any, source), filename, cast(Any, sink), max_row_bytes=max_row_bytes)


def take(storage: Storage, dataset_id: str, filename: str, source: IO[bytes], *, max_row_bytes: int) -> TakenDataset:
    """Copy a file to storage and check it; nothing stays behind when it isn't a dataset.

    Raises:
        InvalidDatasetError: The file isn't a dataset.
    """
    try:
        with storage.writing(file_key(dataset_id)) as target:
            size_bytes, sha256 = copy_hashed(source, target)
        return TakenDataset(size_bytes, sha256, check_rows(storage, dataset_id, filename, max_row_bytes=max_row_bytes))
    except BaseException:
        storage.delete(folder_key(dataset_id))
        raise
