"""Rows of several datasets written one behind the other as a dataset of its own, in bounded memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, assert_never, cast

import pyarrow.parquet as pq

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.ingest import PREVIEW_ROWS, IngestReport
from sienn_ray.datasets.intake import AbandonedError, TakenDataset
from sienn_ray.datasets.preview import preview_row
from sienn_ray.datasets.raw_rows import as_table, raw_line, raw_row, stored_rows
from sienn_ray.datasets.row_writer import MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_ROWS
from sienn_ray.datasets.schema import PARQUET_SCHEMA, DatasetFormat, RowKind
from sienn_ray.storage import Storage


def join(
    storage: Storage,
    dataset_id: str,
    parts: Sequence[str],
    kind: RowKind,
    *,
    check_size: Callable[[int], None] = lambda _: None,
    abandoned: threading.Event | None = None,
) -> TakenDataset:
    """Write the rows of some datasets as one: its rows, and a JSONL file of them that can be uploaded again.

    Args:
        storage: Where all are.
        dataset_id: The new one's id.
        parts: Ids of the others, in order.
        kind: What all rows are.
        check_size: Called with the bytes of the file so far; raises when they are too many.
        abandoned: Ends the writing once it is set.

    Raises:
        AbandonedError: `abandoned` was set.
    """
    with (
        storage.writing(dataset_keys.file_key(dataset_id)) as file,
        storage.writing(dataset_keys.rows_key(dataset_id)) as sink,
        _Joined(file, sink) as joined,
    ):
        for row in _rows_of(storage, parts):
            if abandoned is not None and abandoned.is_set():
                raise AbandonedError
            joined.add(row)
            check_size(joined.num_bytes)
    return joined.taken(kind)


def _rows_of(storage: Storage, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for part in parts:
        with storage.reading(dataset_keys.rows_key(part)) as source:
            yield from stored_rows(pq.ParquetFile(cast(Any, source)))


class _Joined:
    """A dataset that is being written."""

    def __init__(self, file: IO[bytes], sink: IO[bytes]) -> None:
        self._file = file
        self._parquet = pq.ParquetWriter(cast(Any, sink), PARQUET_SCHEMA, compression="zstd", write_statistics=False)
        self._hash = hashlib.sha256()
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = self.num_bytes = self._num_rows = 0
        self._columns: tuple[str, ...] = ()
        self._preview: list[dict[str, Any]] = []

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, kind: object, error: object, at: object) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self._parquet.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one row."""
        line = raw_line(row)
        self.num_bytes += len(line)
        self._file.write(line)
        self._hash.update(line)
        if len(self._preview) < PREVIEW_ROWS:
            raw = raw_row(row)
            self._preview.append(preview_row(raw))
            self._columns = self._columns or tuple(raw)
        # Numbers and lines are those of the new file; none of its columns is ever empty.
        self._waiting.append({**row, "row": self._num_rows, "line": self._num_rows + 1, "empty_columns": []})
        self._num_rows += 1
        self._waiting_bytes += len(line)
        if len(self._waiting) >= MAX_ROW_GROUP_ROWS or self._waiting_bytes >= MAX_ROW_GROUP_BYTES:
            self._flush()

    def taken(self, kind: RowKind) -> TakenDataset:
        """Return what has been written."""
        report = IngestReport(_format_of(kind), self._columns, self._num_rows, self._preview)
        return TakenDataset(self.num_bytes, self._hash.hexdigest(), report)

    def _flush(self) -> None:
        if self._waiting:
            self._parquet.write_table(as_table(self._waiting, PARQUET_SCHEMA))
        self._waiting, self._waiting_bytes = [], 0


def _format_of(kind: RowKind) -> DatasetFormat:
    """The column set of a file of JSON lines with such rows; see `raw_rows`."""
    match kind:
        case RowKind.CONVERSATION:
            return DatasetFormat.CHAT
        case RowKind.TEXT:
            return DatasetFormat.TEXT
        case RowKind.PREFERENCE:
            return DatasetFormat.PREFERENCE
        case RowKind.UNPAIRED_PREFERENCE:
            return DatasetFormat.UNPAIRED_PREFERENCE
        case _:
            assert_never(kind)
