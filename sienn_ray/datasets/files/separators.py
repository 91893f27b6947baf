"""Separators of CSV, told from the line that names the columns, and never from text."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass

from sienn_ray.datasets.files.known_columns import are_known
from sienn_ray.datasets.reading_options import SEPARATORS, ReadingOptions
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

_MARK = "\ufeff"
_EXCEL_LINE = re.compile(r'"?sep=(.)"?[ \t;,|]*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Separation:
    """The separation of a CSV file's fields.

    Args:
        separator: The character between fields.
        is_guessed: Whether the first line told it, and it isn't the one that the file's name stands for.
        skips_spaces: Whether spaces behind separators are left out, as hand-written files have them.
    """

    separator: str
    is_guessed: bool = False
    skips_spaces: bool = False


def excel_separator(line: str) -> str | None:
    """Return the separator that a line names for Excel, as `sep=;`; None for any other line.

    Raises:
        InvalidDatasetError: It names one that isn't known.
    """
    found = _EXCEL_LINE.fullmatch(line.removeprefix(_MARK).rstrip("\r\n"))
    if found is None:
        return None
    if found[1] not in SEPARATORS:
        raise InvalidDatasetError(
            f"the line sep={found[1]} names the separator {shown(found[1])}, which isn't read here; save the file with "
            "commas or semicolons"
        )
    return found[1]


def separation_of(header: str, options: ReadingOptions, usual: str) -> Separation:
    """Tell the separator from the line that names the columns.

    Args:
        header: That line.
        options: Its separator is used whatever the line says; its columns are known names.
        usual: The separator that the file's name stands for. It is kept wherever its columns are understood.
    """
    if options.separator is not None:
        return Separation(options.separator, skips_spaces=_skips_spaces(header, options.separator))
    names = {separator: fields_of(header, separator) for separator in (usual, *SEPARATORS)}
    known = [separator for separator, found in names.items() if _is_known(found, options)]
    if known:
        chosen = known[0]
    elif len(names[usual]) > 1:
        chosen = usual
    else:
        # Nothing is understood; the message shows the columns as most separators would have them.
        chosen = max(names, key=lambda separator: len(names[separator]))
    return Separation(chosen, chosen != usual, _skips_spaces(header, chosen))


def fields_of(line: str, separator: str) -> list[str]:
    """Return the fields of a line under a separator; none where its quotes aren't in order."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        # Quotes behind spaces, as in hand-written files.
        try:
            return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True), [])
        except csv.Error:
            return []


def is_header(line: str, options: ReadingOptions) -> bool:
    """Return whether a line names the columns of a format, and those are at least two."""
    fields = (fields_of(line, separator) for separator in SEPARATORS)
    return any(len(found) > 1 and _is_known(found, options) for found in fields)


def _is_known(names: Collection[str], options: ReadingOptions) -> bool:
    return are_known([name.strip(f"{_MARK} \t'\"") for name in names], options)


def _skips_spaces(header: str, separator: str) -> bool:
    """Return whether each column behind the first begins with a space."""
    _, *further = header.rstrip("\r\n").split(separator)
    further = [name for name in further if name]
    return bool(further) and all(name.startswith(" ") and not name.isspace() for name in further)
