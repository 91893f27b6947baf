"""Faults of CSV rows in words, with the place where each is."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from sienn_ray.datasets.reading_options import SEPARATORS


def words_of_error(error: csv.Error, line: str, separator: str, *, in_quotes: bool) -> str:
    """Say what is wrong with a row that the library can't read.

    Args:
        error: The library's error.
        line: The line at which it gave up.
        separator: What is between fields.
        in_quotes: Whether that line begins within a quoted field.
    """
    reason = str(error)
    if is_open_quote(error):
        return "broken CSV: a quote opened in this row is never closed"
    if reason.startswith("new-line character seen in unquoted field"):
        return 'broken CSV: a carriage return stands alone; end lines with "\\n" or "\\r\\n"'
    column = _column_behind_quote(line, separator, in_quotes)
    place = f" at column {column}" if column else ""
    return f"broken CSV: {reason}{place}; double the quotes inside a quoted field"


def is_open_quote(error: csv.Error) -> bool:
    """Return whether the file ended within a quoted field."""
    return str(error) == "unexpected end of data"


def words_of_width(num_fields: int, num_columns: int, separator: str) -> str:
    """Say that a row has too few or too many fields."""
    kind = SEPARATORS[separator][0]
    return (
        f"the row has {num_fields} fields, but the header has {num_columns} columns; "
        f"put quotes around a field with {kind}s or line breaks, and double the quotes in it"
    )


def space_before_quote(fields: Sequence[str]) -> str | None:
    """Say which field has a space before its quote, so that its quotes would be text; None if none has."""
    for number, field in enumerate(fields, start=1):
        if field[:1] in (" ", "\t") and field.lstrip(" \t").startswith('"'):
            return (
                f"field {number} begins with a space before its quote, so that the quotes would be part of the text; "
                "remove the space"
            )
    return None


def _column_behind_quote(line: str, separator: str, in_quotes: bool) -> int | None:
    """1-based column of the first character that may not be behind a closing quote."""
    at, is_start = 0, not in_quotes
    while at < len(line):
        if in_quotes:
            end = line.find('"', at)
            if end < 0:
                return None
            if line[end + 1 : end + 2] == '"':
                at = end + 2
                continue
            behind = line[end + 1 : end + 2]
            if behind and behind not in f"{separator}\r\n":
                return end + 2
            in_quotes, at, is_start = False, end + 1, False
        elif is_start and line[at] == '"':
            in_quotes, at = True, at + 1
        else:
            following = line.find(separator, at)
            if following < 0:
                return None
            at, is_start = following + 1, True
    return None
