"""Faults of a file: the first ones in words, the others counted."""

from __future__ import annotations

from dataclasses import dataclass

from sienn_ray.errors import InvalidDatasetError

MAX_ROW_FAULTS = 20
MAX_MESSAGE_CHARS = 1_500

_MAX_NAMED_FAULTS = 5
_MAX_FURTHER_CHARS = 300


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
    """Collects faults in bounded memory: those of the first bad rows, and the one that ended the reading."""

    def __init__(self) -> None:
        self.num_bad_rows = 0
        self._of_rows: list[RowFault] = []
        self._end: RowFault | None = None

    @property
    def faults(self) -> tuple[RowFault, ...]:
        """In the order of the file."""
        return (*self._of_rows, *([self._end] if self._end else []))

    def add_row(self, error: InvalidDatasetError) -> None:
        """Note that a row can't be used."""
        self.num_bad_rows += 1
        if len(self._of_rows) < MAX_ROW_FAULTS:
            self._of_rows.append(_fault(error))

    def add_end(self, error: InvalidDatasetError) -> None:
        """Note why nothing more can be read."""
        self._end = _fault(error)

    def combined(self) -> InvalidDatasetError:
        """One error that names the first faults and counts the others."""
        first, *further = [*self._of_rows[:_MAX_NAMED_FAULTS], *([self._end] if self._end else [])]
        words = [first.message, *(_cut(fault.message, _MAX_FURTHER_CHARS) for fault in further)]
        if num_more := max(0, self.num_bad_rows - _MAX_NAMED_FAULTS):
            words.insert(_MAX_NAMED_FAULTS, f"and {num_more:,} more bad row{'s' if num_more > 1 else ''}")
        return InvalidDatasetError("; ".join(words), first.line)


def _fault(error: InvalidDatasetError) -> RowFault:
    return RowFault(error.line, _cut(error.message, MAX_MESSAGE_CHARS))


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[:max_chars] + "…"
