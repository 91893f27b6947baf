"""Rows of CSV and JSONL files, one at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from sienn_ray.datasets.columns import normalized_column, repeated_column
from sienn_ray.datasets.strict_json import json_value
from sienn_ray.datasets.utf8 import text_lines
from sienn_ray.datasets.wording import kind_of
from sienn_ray.errors import InvalidDatasetError


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it.

    Args:
        values: Values by column.
        line: 1-based line where the row begins, or the row's number in a JSON array.
        is_array_item: Whether `line` is a row's number.
    """

    values: dict[str, Any]
    line: int
    is_array_item: bool = False

    def error(self, message: str) -> InvalidDatasetError:
        """An error that says where this row is."""
        return InvalidDatasetError(f"row {self.line}: {message}" if self.is_array_item else message, self.line)


def read_csv(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a CSV file (RFC 4180) whose first row names the columns; empty lines are skipped.

    Yields:
        Rows, and in place of a broken row (too few or too many fields, quotes in the wrong place) its error.

    Raises:
        InvalidDatasetError: The header is broken, a row is too long, or a quote is left open.
    """
    records = _csv_records(source, max_row_bytes)
    header_line, header = next(records, (0, []))
    if isinstance(header, InvalidDatasetError):
        raise header
    if not header:
        raise InvalidDatasetError("the file is empty; the first row must name the columns")
    _check_header(header, header_line)
    for line, fields in records:
        if isinstance(fields, InvalidDatasetError):
            yield fields
        elif len(fields) != len(header):
            yield InvalidDatasetError(
                f"the row has {len(fields)} fields, but the header has {len(header)} columns; "
                "put quotes around a field with commas or line breaks, and double the quotes in it",
                line,
            )
        else:
            yield RawRow(dict(zip(header, fields, strict=True)), line)
        del fields  # not to be held beside the next row's


def read_jsonl(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a file with one JSON object per line; blank lines are skipped.

    Yields:
        Rows, and in place of a line that is no JSON object, is too deeply nested or repeats a key, its error.

    Raises:
        InvalidDatasetError: A line is too long.
    """
    for line, text in enumerate(text_lines(source, max_row_bytes), start=1):
        # Without its end, so that a fault at the end is not placed in the next line.
        if content := text.rstrip(" \t\r\n"):
            try:
                yield RawRow(_json_object(content, line), line)
            except InvalidDatasetError as error:
                yield error


class _BoundedLines:
    """Lines for `csv.reader` that stop a record from growing without end, as it does when a quote is left open."""

    def __init__(self, source: BinaryIO, max_record_bytes: int) -> None:
        self._lines = text_lines(source, max_record_bytes)
        self._max_record_bytes = max_record_bytes
        self._num_lines = 0
        self.start_record()

    def start_record(self) -> None:
        self.record_line = self._num_lines + 1
        self._record_bytes = 0

    def __iter__(self) -> _BoundedLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._num_lines += 1
        self._record_bytes += len(line.encode())
        # The line break at the end is not counted, as in `text_lines`.
        if self._record_bytes - 1 > self._max_record_bytes:
            raise InvalidDatasetError(
                f"the row that begins here is longer than {self._max_record_bytes:,} bytes; is a quote left open?",
                self.record_line,
            )
        return line


def _csv_records(source: BinaryIO, max_row_bytes: int) -> Iterator[tuple[int, list[str] | InvalidDatasetError]]:
    """Yield (line where the record begins, its fields or what is wrong with it)."""
    # The limit belongs to the whole process and is 128 KiB at first, too little for a long row. It is only ever raised,
    # so that no other reader meets a lower one; ours is bounded by _BoundedLines in any case.
    if csv.field_size_limit() < max_row_bytes:
        csv.field_size_limit(max_row_bytes)
    lines = _BoundedLines(source, max_row_bytes)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = InvalidDatasetError(f"broken CSV: {_csv_reason(error)}", lines.record_line)
            if _is_open_quote(error):
                raise fault from error
            yield lines.record_line, fault  # the reader begins anew with the next line
        else:
            if fields:
                yield lines.record_line, fields
            del fields


def _is_open_quote(error: csv.Error) -> bool:
    return str(error) == "unexpected end of data"


def _csv_reason(error: csv.Error) -> str:
    reason = str(error)
    if _is_open_quote(error):
        return "a quote opened in this row is never closed"
    if reason.startswith("new-line character seen in unquoted field"):
        return 'a carriage return stands alone; end lines with "\\n" or "\\r\\n"'
    return f"{reason}; double the quotes inside a quoted field"


def _check_header(header: list[str], line: int) -> None:
    if len({normalized_column(name) for name in header}) < len(header):
        raise InvalidDatasetError(f"the header has the column {repeated_column(header)} more than once", line)


def _json_object(text: str, line: int) -> dict[str, Any]:
    try:
        value = json_value(text, "each line must be one whole object")
    except InvalidDatasetError as error:
        raise InvalidDatasetError(error.message, line) from error
    if not isinstance(value, dict):
        hint = "; a file that is one array must be named .json" if isinstance(value, list) else ""
        raise InvalidDatasetError(f"each line must be a JSON object, got {kind_of(value)}{hint}", line)
    return value
