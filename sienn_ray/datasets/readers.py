"""Rows of files, and those of JSONL files, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.strict_json import json_value
from sienn_ray.datasets.utf8 import text_lines
from sienn_ray.datasets.wording import kind_of
from sienn_ray.errors import InvalidDatasetError

_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it.

    Args:
        values: Values by column.
        line: 1-based line where the row begins, or the row's number in a JSON array.
        is_array_item: Whether `line` is a row's number.
        is_below_header: Whether a row above named the columns.
    """

    values: dict[str, Any]
    line: int
    is_array_item: bool = False
    is_below_header: bool = False

    def error(self, message: str) -> InvalidDatasetError:
        """An error that says where this row is."""
        return InvalidDatasetError(f"row {self.line}: {message}" if self.is_array_item else message, self.line)


def read_jsonl(source: BinaryIO, max_row_bytes: int, notes: FileNotes) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a file with one JSON object per line; blank lines, and commas at the end of lines, are left out.

    Yields:
        Rows, and in place of a line that is no JSON object, is too deeply nested or repeats a key, its error.

    Raises:
        InvalidDatasetError: A line is too long.
    """
    for line, text in enumerate(text_lines(source, max_row_bytes), start=1):
        # Without its end, so that a fault at the end is not placed in the next line.
        if content := text.rstrip(" \t\r\n"):
            if content[0] == _MARK or content[-1] == ",":
                content = _bare(content, notes)
                if not content:
                    continue
            try:
                yield RawRow(json_object(content), line)
            except InvalidDatasetError as error:
                yield InvalidDatasetError(error.message, line)


def json_object(text: str, advice: str = "each line must be one whole object") -> dict[str, Any]:
    """Parse a row's JSON.

    Args:
        text: The JSON.
        advice: What the text must be, for the error where it is no JSON.

    Raises:
        InvalidDatasetError: It is no JSON object. The error bears no line.
    """
    value = json_value(text, advice)
    if not isinstance(value, dict):
        hint = '; name what it is, as in {"messages": [...]}' if isinstance(value, list) else ""
        raise InvalidDatasetError(f"each line must be a JSON object, got {kind_of(value)}{hint}")
    return value


def _bare(line: str, notes: FileNotes) -> str:
    """A line without what files that were put together, or cut out of an array, have around it."""
    if line[0] == _MARK:
        notes.add("byte order marks in the middle of the file were left out")
    if line[-1] == ",":
        notes.add("lines end with commas, which were left out")
    return line.lstrip(_MARK).rstrip(", \t")
