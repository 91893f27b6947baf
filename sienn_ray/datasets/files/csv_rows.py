"""Rows of CSV files, one at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from sienn_ray.datasets.columns import normalized_column, repeated_column
from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.files.csv_faults import is_open_quote, space_before_quote, words_of_error, words_of_width
from sienn_ray.datasets.files.separators import Separation, excel_separator, separation_of
from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.utf8 import text_lines
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

_MARK = "\ufeff"
# Around a column's name in a header that comes again; longer fields aren't compared.
_MAX_BLANKS = 4
_NOTHING = " \t\r\n,;|\ufeff"


def read_csv(
    source: BinaryIO, max_row_bytes: int, options: ReadingOptions, notes: FileNotes, *, usual_separator: str = ","
) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a CSV file (RFC 4180) whose first row names the columns; blank rows are left out.

    Args:
        source: The file.
        max_row_bytes: The longest row accepted.
        options: Its separator is used; else the first row tells it.
        notes: Told of what was guessed and left out.
        usual_separator: What the file's name says.

    Yields:
        Rows, and in place of a broken row (too few or too many fields, quotes in the wrong place) its error.

    Raises:
        InvalidDatasetError: The header is broken, a row is too long, or a quote is left open.
    """
    lines = _BoundedLines(source, max_row_bytes, notes)
    separation = _separation(lines, options, usual_separator)
    if separation.is_guessed:
        notes.guess("separator", separation.separator)
    if separation.skips_spaces:
        notes.guess("spaces", "left out behind separators")
    records = _records(lines, separation)
    header_line, header = next(records, (0, []))
    if isinstance(header, InvalidDatasetError):
        raise header
    if not header:
        raise InvalidDatasetError("the file is empty; the first row must name the columns")
    table = _Table(header, header_line, lines, separation)
    yield from table.rows(records)
    table.tell(notes)


class _Table:
    """The rows below a header."""

    def __init__(self, header: Sequence[str], line: int, lines: _BoundedLines, separation: Separation) -> None:
        if problem := None if separation.skips_spaces else space_before_quote(header):
            raise InvalidDatasetError(problem, line)
        self._lines = lines
        self._separation = separation
        self._width = len(header)
        self._names = _named(header, line)
        self._normalized = [normalized_column(name) for name in self._names]
        self._blank: list[int] = []  # number, and the line of the first one
        self._headers: list[int] = []

    def rows(
        self, records: Iterator[tuple[int, list[str] | InvalidDatasetError]]
    ) -> Iterator[RawRow | InvalidDatasetError]:
        names, width = self._names, self._width
        num_names, longest_header = len(names), len(names[0]) + _MAX_BLANKS
        is_table = width > 1
        for line, fields in records:
            if isinstance(fields, InvalidDatasetError):
                yield fields
            elif is_table and not fields[0].strip() and not any(map(str.strip, fields)):
                _count(self._blank, line)
            elif self._lines.may_have_space_before_quote and (problem := space_before_quote(fields)):
                yield InvalidDatasetError(problem, line)
            elif num_names == len(fields) == width:
                if len(fields[0]) <= longest_header and self._is_header(fields):
                    _count(self._headers, line)
                else:
                    yield RawRow(dict(zip(names, fields, strict=True)), line, is_below_header=True)
            else:
                yield from self._odd_row(fields, line)
            del fields  # not to be held beside the next row's

    def _odd_row(self, fields: list[str], line: int) -> Iterator[RawRow | InvalidDatasetError]:
        """A row of another width than the columns that have names."""
        num_names = len(self._names)
        if not num_names <= len(fields) <= self._width:
            yield InvalidDatasetError(words_of_width(len(fields), self._width, self._separation.separator), line)
        elif extra := next((field for field in fields[num_names:] if field.strip()), ""):
            yield InvalidDatasetError(
                f"{shown(extra)} stands in a column without a name; name it in the header, or remove it", line
            )
        elif self._is_header(fields[:num_names]):
            _count(self._headers, line)
        else:
            yield RawRow(dict(zip(self._names, fields, strict=False)), line, is_below_header=True)

    def _is_header(self, fields: Sequence[str]) -> bool:
        return len(fields) > 1 and [normalized_column(field) for field in fields] == self._normalized

    def tell(self, notes: FileNotes) -> None:
        """Note what was left out."""
        if self._blank:
            notes.add(f"{_rows(self._blank[0], 'blank row')} left out, the first one in line {self._blank[1]}")
        if self._headers:
            notes.add(
                f"{_rows(self._headers[0], 'repeated header')} left out, the first one in line {self._headers[1]}"
            )


class _BoundedLines:
    """Lines for `csv.reader` that stop a record from growing without end, as it does when a quote is left open."""

    def __init__(self, source: BinaryIO, max_record_bytes: int, notes: FileNotes) -> None:
        self._lines = text_lines(source, max_record_bytes)
        self._notes = notes
        self._ahead: str | None = None
        self._max_record_bytes = max_record_bytes
        self._num_lines = 0
        self._seeks = False
        self.last = ""
        self.start_record()

    def first(self) -> str:
        """Look at the first line that isn't blank; it is read again then. Empty where there is none."""
        self._ahead = None
        for line in self._lines:
            if line.strip(_NOTHING):
                self._ahead = line
                return line.removeprefix(_MARK)
            self._num_lines += 1
        return ""

    def skip(self) -> None:
        """Leave out the line that was looked at."""
        self._ahead = None
        self._num_lines += 1

    def seek_space_before_quote(self) -> None:
        """Look from now on for quotes that have a space before them."""
        self._seeks = True

    def start_record(self) -> None:
        self.record_line = self._num_lines + 1
        self._record_bytes = 0
        self.may_have_space_before_quote = False

    @property
    def is_continued(self) -> bool:
        """Whether the record has more than one line."""
        return self._num_lines > self.record_line

    def __iter__(self) -> _BoundedLines:
        return self

    def __next__(self) -> str:
        if self._ahead is None:
            line = next(self._lines)
        else:
            line, self._ahead = self._ahead, None
        self._num_lines += 1
        if line[0] == _MARK and not self._record_bytes:
            line = line.lstrip(_MARK)
            self._notes.add("byte order marks in the middle of the file were left out")
        self._record_bytes += len(line.encode())
        # The line break at the end is not counted, as in `text_lines`.
        if self._record_bytes - 1 > self._max_record_bytes:
            raise InvalidDatasetError(
                f"the row that begins here is longer than {self._max_record_bytes:,} bytes; is a quote left open?",
                self.record_line,
            )
        if self._seeks and ' "' in line:
            self.may_have_space_before_quote = True
        self.last = line
        return line


def _separation(lines: _BoundedLines, options: ReadingOptions, usual: str) -> Separation:
    header = lines.first()
    named = excel_separator(header)
    if named is not None:
        lines.skip()
        header = lines.first()
        if options.separator is None:
            separation = separation_of(header, ReadingOptions(separator=named), usual)
            return Separation(named, named != usual, separation.skips_spaces)
    return separation_of(header, options, usual)


def _records(lines: _BoundedLines, separation: Separation) -> Iterator[tuple[int, list[str] | InvalidDatasetError]]:
    """Yield (line where the record begins, its fields or what is wrong with it)."""
    # The limit belongs to the whole process and is 128 KiB at first, too little for a long row. It is only ever raised,
    # so that no other reader meets a lower one; ours is bounded by _BoundedLines in any case.
    if csv.field_size_limit() < lines._max_record_bytes:
        csv.field_size_limit(lines._max_record_bytes)
    if not separation.skips_spaces:
        lines.seek_space_before_quote()
    reader = csv.reader(lines, delimiter=separation.separator, strict=True, skipinitialspace=separation.skips_spaces)
    while True:
        lines.start_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            words = words_of_error(error, lines.last, separation.separator, in_quotes=lines.is_continued)
            fault = InvalidDatasetError(words, lines.record_line)
            if is_open_quote(error):
                raise fault from error
            yield lines.record_line, fault  # the reader begins anew with the next line
        else:
            if fields:
                yield lines.record_line, fields
            del fields


def _named(header: Sequence[str], line: int) -> list[str]:
    """The names of columns, without blank ones behind them; several blank ones before them get their numbers."""
    names = list(header)
    while len(names) > 1 and not names[-1].strip():
        names.pop()
    if sum(not name.strip() for name in names) > 1:
        names = [name if name.strip() else f"column {number}" for number, name in enumerate(names, start=1)]
    if len({normalized_column(name) for name in names}) < len(names):
        raise InvalidDatasetError(f"the header has the column {repeated_column(names)} more than once", line)
    return names


def _count(found: list[int], line: int) -> None:
    if found:
        found[0] += 1
    else:
        found.extend((1, line))


def _rows(number: int, what: str) -> str:
    return f"{number:,} {what}{' was' if number == 1 else 's were'}"
