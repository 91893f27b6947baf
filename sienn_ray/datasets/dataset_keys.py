"""Storage keys of a dataset; those of a job are named in `sienn_ray/storage_keys.py`."""

from __future__ import annotations

FOLDER_KEY = "datasets"


def folder_key(dataset_id: str) -> str:
    """Storage key of everything that belongs to a dataset."""
    return f"{FOLDER_KEY}/{dataset_id}"


def file_key(dataset_id: str) -> str:
    """Storage key of the file as it came. The user's file name has no part in it."""
    return f"{folder_key(dataset_id)}/file"


def unregistered_key(dataset_id: str) -> str:
    """Storage key of the mark of a dataset whose record may never come; with a record it means nothing."""
    return f"{folder_key(dataset_id)}/unregistered"


def rows_key(dataset_id: str) -> str:
    """Storage key of the checked rows, as Parquet."""
    return f"{folder_key(dataset_id)}/rows.parquet"
