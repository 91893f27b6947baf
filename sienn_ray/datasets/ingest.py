"""From an uploaded file to a checked dataset in Parquet, in one pass and in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePath
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sienn_ray.datasets.json_array import read_json_array
from sienn_ray.datasets.readers import RawRow, read_csv, read_jsonl
from sienn_ray.datasets.schema import PARQUET_SCHEMA, CanonicalRow, DatasetFormat, canonical_row, detect_format
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

MAX_ROW_BYTES = 4 * 1024 * 1024
MAX_ROW_GROUP_ROWS = 1_000
MAX_ROW_GROUP_BYTES = 8 * 1024 * 1024

MAX_PREVIEW_CHARS = 500
MAX_PREVIEW_ITEMS = 100
MAX_PREVIEW_DEPTH = 8

_READERS: dict[str, Callable[[BinaryIO, int], Iterator[RawRow]]] = {
    ".csv": read_csv,
    ".json": read_json_array,
    ".jsonl": read_jsonl,
}


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an accepted file holds.

    Args:
        format: The column set, told from the first row.
        columns: The first row's columns as the file names them, at most `MAX_PREVIEW_ITEMS`.
        num_rows: Rows written.
        preview: The first rows as the file has them, with long values cut; fit to be stored and shown as JSON.
    """

    format: DatasetFormat
    columns: tuple[str, ...]
    num_rows: int
    preview: list[dict[str, Any]]


def ingest(
    source: BinaryIO,
    filename: str,
    sink: BinaryIO | pa.NativeFile,
    *,
    preview_rows: int = 5,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> IngestReport:
    """Check a dataset and write it as Parquet, with the columns of `PARQUET_SCHEMA`.

    Args:
        source: The file, at its beginning; only `read` is called. Neither it nor `sink` is closed.
        filename: Its name, whose extension tells how to read it.
        sink: Where the Parquet goes (a file or a pyarrow output stream). After an error its content is of no use.
        preview_rows: Rows to show in the report.
        max_row_bytes: The longest row accepted, as it is in the file.

    Raises:
        InvalidDatasetError: Something is wrong with the file; the first fault ends the reading.
    """
    rows = _reader(filename)(source, max_row_bytes)
    first = next(rows, None)
    if first is None:
        raise InvalidDatasetError("the file has no rows; at least one is needed")
    dataset_format = detect_format(first.values)
    preview: list[dict[str, Any]] = []
    with _CanonicalWriter(sink) as writer:
        for raw in chain([first], rows):
            writer.add(_checked(dataset_format, raw), raw.line)
            if len(preview) < preview_rows:
                preview.append(_preview_object(raw.values))
    columns = tuple(_preview_string(name) for name in islice(first.values, MAX_PREVIEW_ITEMS))
    return IngestReport(dataset_format, columns, writer.num_rows, preview)


def _reader(filename: str) -> Callable[[BinaryIO, int], Iterator[RawRow]]:
    extension = PurePath(filename).suffix.lower()
    if extension not in _READERS:
        found = f"the extension {shown(extension)} is not" if extension else "a file without an extension is not"
        raise InvalidDatasetError(f"{found} accepted; use one of {', '.join(_READERS)}")
    return _READERS[extension]


def _checked(dataset_format: DatasetFormat, raw: RawRow) -> CanonicalRow:
    try:
        return canonical_row(dataset_format, raw.values)
    except InvalidDatasetError as error:
        raise raw.error(error.message) from error


class _CanonicalWriter:
    """Writes canonical rows as Parquet in row groups that are bounded in rows and in memory."""

    def __init__(self, sink: BinaryIO | pa.NativeFile) -> None:
        self._parquet = pq.ParquetWriter(sink, PARQUET_SCHEMA, compression="zstd")
        self._buffer: list[dict[str, Any]] = []
        self._buffer_bytes = 0
        self.num_rows = 0

    def __enter__(self) -> _CanonicalWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Closed after an error too: pyarrow would otherwise do it when collecting garbage, on a sink that may be gone.
        try:
            if error is None:
                self._flush()
        finally:
            self._parquet.close()

    def add(self, row: CanonicalRow, line: int) -> None:
        messages = row.messages and [{"role": str(m.role), "content": m.content} for m in row.messages]
        self._buffer.append({"row": self.num_rows, "line": line, "messages": messages, "text": row.text})
        self._buffer_bytes += _size_bytes(row)
        self.num_rows += 1
        if len(self._buffer) >= MAX_ROW_GROUP_ROWS or self._buffer_bytes >= MAX_ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._parquet.write_batch(pa.RecordBatch.from_pylist(self._buffer, schema=PARQUET_SCHEMA))
            self._buffer, self._buffer_bytes = [], 0


def _size_bytes(row: CanonicalRow) -> int:
    """About how much memory a row's strings take."""
    if row.messages is None:
        return sys.getsizeof(row.text)
    return sum(sys.getsizeof(message.content) for message in row.messages)


def _preview_object(values: dict[str, Any], depth: int = 1) -> dict[str, Any]:
    items = islice(values.items(), MAX_PREVIEW_ITEMS)
    return {_preview_string(name): _preview_value(value, depth + 1) for name, value in items}


def _preview_value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _preview_string(value)
    if not isinstance(value, dict | list):
        return value
    if depth >= MAX_PREVIEW_DEPTH:
        return "…"
    if isinstance(value, dict):
        return _preview_object(value, depth)
    return [_preview_value(item, depth + 1) for item in value[:MAX_PREVIEW_ITEMS]]


def _preview_string(text: str) -> str:
    """Cut a string and replace what JSON responses or databases can't hold: halves of surrogate pairs, and NUL."""
    cut = text if len(text) <= MAX_PREVIEW_CHARS else text[:MAX_PREVIEW_CHARS] + "…"
    return cut.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
