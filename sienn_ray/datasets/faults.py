"""Faults of a file: the first ones in words, the others counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sienn_ray.errors import InvalidDatasetError

MAX_ROW_FAULTS = 20
MAX_MESSAGE_CHARS = 1_500
# As many rows at the beginning of a file make a fault that they share the file's.
MIN_SHARED_ROWS = 5

_MAX_NAMED_FAULTS = 5
_MAX_FURTHER_CHARS = 300
_PLACE = re.compile(r"(?:line|row) \d+: ")
_NUMBER = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True)
class RowFault:
    """A fault for which a file is refused.

    Args:
        line: 1-based line (CSV, JSONL) or row (JSON array); None where it is the whole file's.
        message: What is wrong there, place included.
    """

    line: int | None
    message: str


class FaultLog:
    """Collects faults in bounded memory: those of the first bad rows, and the one that ended the reading.

    A fault that all of the first rows have is that of the file: it is told once, with the number of rows that have it.
    """

    def __init__(self) -> None:
        self.num_bad_rows = 0
        self._of_rows: list[RowFault] = []
        self._end: RowFault | None = None
        self._cause = ""  # of the first row, while all rows have had it
        self._num_of_cause = 0

    @property
    def faults(self) -> tuple[RowFault, ...]:
        """In the order of the file."""
        return (*self._told(), *([self._end] if self._end else []))

    def add_row(self, error: InvalidDatasetError, number: int) -> None:
        """Note that a row can't be used.

        Args:
            error: Why not.
            number: 1-based number of the row among all that were read.
        """
        self.num_bad_rows += 1
        cause = _cause(error.message)
        if number == 1:
            self._cause = cause
        if cause == self._cause and (self._is_shared or number == self._num_of_cause + 1):
            self._num_of_cause += 1
            if self._num_of_cause == MIN_SHARED_ROWS:
                del self._of_rows[1:]
            if self._is_shared:
                return
        if len(self._of_rows) < MAX_ROW_FAULTS:
            self._of_rows.append(_fault(error))

    def add_end(self, error: InvalidDatasetError) -> None:
        """Note why nothing more can be read."""
        self._end = _fault(error)

    def combined(self) -> InvalidDatasetError:
        """One error that names the first faults and counts the others."""
        told = self._told()[:_MAX_NAMED_FAULTS]
        first, *further = [*told, *([self._end] if self._end else [])]
        words = [first.message, *(_cut(fault.message, _MAX_FURTHER_CHARS) for fault in further)]
        num_told = len(told) + (self._num_of_cause - 1 if self._is_shared else 0)
        if num_more := self.num_bad_rows - num_told:
            words.insert(len(told), f"and {num_more:,} more bad row{'s' if num_more > 1 else ''}")
        return InvalidDatasetError("; ".join(words), first.line)

    @property
    def _is_shared(self) -> bool:
        return self._num_of_cause >= MIN_SHARED_ROWS

    def _told(self) -> list[RowFault]:
        if not self._is_shared:
            return self._of_rows
        first, *others = self._of_rows
        words = f"{first.message} (the same in {self._num_of_cause:,} rows, from the first one on)"
        return [RowFault(first.line, words), *others]


def _cause(message: str) -> str:
    """A message without its place and its numbers, by which faults of one cause are told."""
    return _NUMBER.sub("#", _PLACE.sub("", message, count=1))


def _fault(error: InvalidDatasetError) -> RowFault:
    return RowFault(error.line, _cut(error.message, MAX_MESSAGE_CHARS))


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[:max_chars] + "…"
