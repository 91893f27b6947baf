"""Intake of dataset files into storage: the file as it came, and its checked rows beside it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import IO, Any, cast

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.ingest import IngestReport, Inspection, ingest, inspect
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.storage import Storage, copy_hashed

_TOLD_FROM_THE_FILE = ReadingOptions()


@dataclass(frozen=True)
class TakenDataset:
    """A dataset that is in storage, checked."""

    size_bytes: int
    sha256: str
    report: IngestReport


class AbandonedError(Exception):
    """The check of a file was abandoned: nobody waits for it any more."""


def check_rows(
    storage: Storage,
    dataset_id: str,
    filename: str,
    *,
    max_row_bytes: int,
    options: ReadingOptions = _TOLD_FROM_THE_FILE,
    abandoned: threading.Event | None = None,
) -> IngestReport:
    """Check a file that is in storage and write its rows beside it; takes as long as reading the file takes.

    Args:
        storage: Where the file is.
        dataset_id: Whose it is.
        filename: The user's name of it.
        max_row_bytes: The longest row accepted.
        options: How to read it, where its user says so.
        abandoned: Ends the reading once it is set.

    Raises:
        InvalidDatasetError: The file isn't a dataset.
        AbandonedError: `abandoned` was set.
    """
    with (
        storage.reading(dataset_keys.file_key(dataset_id)) as file,
        storage.writing(dataset_keys.rows_key(dataset_id)) as sink,
    ):
        source: Any = _Abandonable(file, abandoned) if abandoned else file
        return ingest(source, filename, cast(Any, sink), options=options, max_row_bytes=max_row_bytes)


def inspect_file(
    storage: Storage,
    dataset_id: str,
    filename: str,
    *,
    max_row_bytes: int,
    options: ReadingOptions = _TOLD_FROM_THE_FILE,
    abandoned: threading.Event | None = None,
) -> Inspection:
    """Check a file that is in storage and write nothing. The arguments are those of `check_rows`.

    Raises:
        AbandonedError: `abandoned` was set.
    """
    with storage.reading(dataset_keys.file_key(dataset_id)) as file:
        source: Any = _Abandonable(file, abandoned) if abandoned else file
        return inspect(source, filename, options=options, max_row_bytes=max_row_bytes)


def take(
    storage: Storage,
    dataset_id: str,
    filename: str,
    source: IO[bytes],
    *,
    max_row_bytes: int,
    options: ReadingOptions = _TOLD_FROM_THE_FILE,
) -> TakenDataset:
    """Copy a file to storage and check it; nothing stays behind when it isn't a dataset.

    Raises:
        InvalidDatasetError: The file isn't a dataset.
    """
    try:
        with storage.writing(dataset_keys.file_key(dataset_id)) as target:
            size_bytes, sha256 = copy_hashed(source, target)
        report = check_rows(storage, dataset_id, filename, max_row_bytes=max_row_bytes, options=options)
        return TakenDataset(size_bytes, sha256, report)
    except BaseException:
        storage.delete(dataset_keys.folder_key(dataset_id))
        raise


class _Abandonable:
    """A file whose reading ends when nobody waits for it."""

    def __init__(self, file: IO[bytes], abandoned: threading.Event) -> None:
        self._file = file
        self._abandoned = abandoned

    def read(self, size: int = -1) -> bytes:
        if self._abandoned.is_set():
            raise AbandonedError
        return self._file.read(size)

    # What Parquet is read by, from its end on.

    @property
    def closed(self) -> bool:
        return self._file.closed

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Leave the file open: it is closed where it was opened."""
