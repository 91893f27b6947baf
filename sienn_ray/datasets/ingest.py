"""Conversion of an uploaded file to a checked dataset in Parquet, in one pass and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from sienn_ray.datasets.columns import empty_columns
from sienn_ray.datasets.faults import FaultLog, RowFault
from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.files.choice import read_rows
from sienn_ray.datasets.preview import MAX_ITEMS, preview_row, preview_string
from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat
from sienn_ray.datasets.shapes.findings import Findings
from sienn_ray.datasets.shapes.reader import RowReader
from sienn_ray.errors import InvalidDatasetError

MAX_ROW_BYTES = 4 * 1024 * 1024
PREVIEW_ROWS = 5
# A file of gigabytes may be nothing but tiny bad rows, and to count them all would take hours.
MAX_BAD_ROWS = 100_000
_TOLD_FROM_THE_FILE = ReadingOptions()


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The content of an accepted file.

    Args:
        format: The column set, told from the first row.
        columns: The first row's columns as the file names them, at most `preview.MAX_ITEMS`.
        num_rows: Rows written.
        preview: The first rows as the file has them, with long values cut; fit to be stored and shown as JSON.
        guessed: What was told from the file's content though it might have been otherwise, by a short name.
        ignored_columns: Columns that nothing is read from, as the file names them; the first ones if there are many.
        notes: Other things that a user should know of the file.
    """

    format: DatasetFormat
    columns: tuple[str, ...]
    num_rows: int
    preview: list[dict[str, Any]]
    guessed: dict[str, str] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The content of any file, and its faults.

    Args:
        format: The column set, told from the first row that can be read; None where there is none.
        columns: That row's columns as the file names them, at most `preview.MAX_ITEMS`.
        num_rows: Rows that were read, good and bad.
        num_bad_rows: Rows with a fault.
        faults: The first of the rows' faults, and what ended the reading, in the order of the file.
        is_complete: Whether the file was read to its end.
        preview: The first good rows, as `IngestReport` has them.
        guessed: As in `IngestReport`, and so are `ignored_columns` and `notes`.
        ignored_columns: See there.
        notes: See there.
    """

    format: DatasetFormat | None
    columns: tuple[str, ...]
    num_rows: int
    num_bad_rows: int
    faults: tuple[RowFault, ...]
    is_complete: bool
    preview: list[dict[str, Any]]
    guessed: dict[str, str] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def ingest(
    source: BinaryIO,
    filename: str,
    sink: BinaryIO | pa.NativeFile,
    *,
    options: ReadingOptions = _TOLD_FROM_THE_FILE,
    preview_rows: int = PREVIEW_ROWS,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> IngestReport:
    """Check a dataset and write it as Parquet, with the columns of `PARQUET_SCHEMA`.

    Args:
        source: The file, at its beginning; only `read` is called, and for Parquet `seek` and `tell`. Neither it nor
            `sink` is closed.
        filename: Its name, whose extension tells how to read it.
        sink: Where the Parquet goes (a file or a pyarrow output stream). After an error its content is of no use.
        options: How to read it, where its user says so.
        preview_rows: Rows to show in the report.
        max_row_bytes: The longest row accepted, as it is in the file.

    Raises:
        InvalidDatasetError: Something is wrong with the file; it names the first faults and counts the others.
    """
    with RowWriter(sink) as writer:
        reading = _Reading(options, preview_rows, writer)
        reading.read(source, filename, max_row_bytes)
        if reading.log.faults:
            raise reading.log.combined()
    assert reading.format is not None  # nosec B101 # for the type checker
    return IngestReport(
        format=reading.format,
        columns=reading.shown_columns,
        num_rows=reading.num_rows,
        preview=reading.preview,
        guessed=reading.notes.guessed,
        ignored_columns=reading.notes.ignored_columns,
        notes=reading.notes.notes,
    )


def inspect(
    source: BinaryIO,
    filename: str,
    *,
    options: ReadingOptions = _TOLD_FROM_THE_FILE,
    preview_rows: int = PREVIEW_ROWS,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> Inspection:
    """Check a dataset, write nothing, and report whatever is wrong with it. The arguments are those of `ingest`.

    Example:
        >>> import io
        >>> inspection = inspect(io.BytesIO(b'{"instruction": "Hi", "response": 5}'), "rows.jsonl")
        >>> inspection.num_bad_rows, inspection.faults[0].message
        (1, "line 1: column 'response' must be a string, got a number")
    """
    reading = _Reading(options, preview_rows)
    reading.read(source, filename, max_row_bytes)
    return Inspection(
        format=reading.format,
        columns=reading.shown_columns,
        num_rows=reading.num_rows,
        num_bad_rows=reading.log.num_bad_rows,
        faults=reading.log.faults,
        is_complete=reading.is_complete,
        preview=reading.preview,
        guessed=reading.notes.guessed,
        ignored_columns=reading.notes.ignored_columns,
        notes=reading.notes.notes,
    )


class _Reading:
    """One pass over a file; good rows go to `writer` for as long as all have been good."""

    def __init__(self, options: ReadingOptions, preview_rows: int, writer: RowWriter | None = None) -> None:
        self._options = options
        self.notes = FileNotes()
        self._findings = Findings(self.notes.ignore)
        self._rows = RowReader(options.columns, self._findings)
        self._preview_rows = preview_rows
        self._writer = writer
        self._columns: tuple[str, ...] = ()
        self.log = FaultLog()
        self.format: DatasetFormat | None = None
        self.num_rows = 0
        self.is_complete = False
        self.preview: list[dict[str, Any]] = []

    @property
    def shown_columns(self) -> tuple[str, ...]:
        return tuple(preview_string(name) for name in self._columns)

    def read(self, source: BinaryIO, filename: str, max_row_bytes: int) -> None:
        try:
            for item in read_rows(source, filename, max_row_bytes, self._options, self.notes):
                self._take(item)
                del item  # a row of the worst kind takes 100 MiB, and readers hold none while they read the next one
            self.is_complete = True
        except InvalidDatasetError as error:
            self.log.add_end(error)
        if self.is_complete:
            self._finish()

    def _finish(self) -> None:
        if self.num_rows == 0:
            self.log.add_end(InvalidDatasetError("the file has no rows; at least one is needed"))
        try:
            self._rows.finish()
        except InvalidDatasetError as error:
            self.log.add_end(error)
        for sentence in self._findings.sentences():
            self.notes.add(sentence)

    def _take(self, item: RawRow | InvalidDatasetError) -> None:
        if isinstance(item, InvalidDatasetError):
            self.num_rows += 1
            self._refuse(item)
            return
        if self.format is None:
            self.format = self._begin(item)
            self._columns = tuple(islice(item.values, MAX_ITEMS))
            self._findings.unit = "row" if item.is_array_item else "line"
        self.num_rows += 1
        try:
            row = self._rows.read(item.values, item.line)
        except InvalidDatasetError as error:
            self._refuse(item.error(error.message))
        else:
            self._keep(row, item)

    def _begin(self, first: RawRow) -> DatasetFormat:
        try:
            return self._rows.begin(first.values, are_strings=first.is_below_header)
        except InvalidDatasetError as error:
            if first.is_below_header and error.message.startswith("unknown columns"):
                raise InvalidDatasetError(
                    f"{error.message}; the first row of the file must name the columns"
                ) from error
            raise

    def _refuse(self, error: InvalidDatasetError) -> None:
        self.log.add_row(error, self.num_rows)
        if self.log.num_bad_rows == MAX_BAD_ROWS:
            raise InvalidDatasetError(f"the reading ended after {MAX_BAD_ROWS:,} bad rows")

    def _keep(self, row: CanonicalRow, raw: RawRow) -> None:
        if self._writer and self.log.num_bad_rows == 0:
            self._writer.add(row, raw.line, empty_columns(self._columns, raw.values))
        if len(self.preview) < self._preview_rows:
            self.preview.append(preview_row(raw.values))
