"""Facts about the rows of a file that its user should know of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Finding(StrEnum):
    """Kinds of facts about rows that are taken as they are."""

    RENDERED = (
        "the text of {rows} was rendered with a chat template already ({example}); it is kept as it is, and "
        "special_tokens of a fine-tune says whether such marks are read as the base model's own"
    )
    PLACEHOLDER = (
        "the answer of {rows} is {example}, as programs write a missing value; it is learned as it is, so remove such "
        "rows where no answer is meant"
    )
    PLACEHOLDER_BESIDE = (
        "{example} in {rows}, as programs write a missing value; it is read as it is, so leave it empty where nothing "
        "is meant"
    )
    SEVERAL_ANSWERS = "{rows} has several answers, of which the first is learned"
    EMBEDDED_MESSAGES = (
        "{example} of {rows} holds messages as JSON, which were read as such; to have them learned as text, write JSON "
        "Lines"
    )
    SPLIT_TEXT = "the turns of {rows} were told from 'Human:' and 'Assistant:' in its text"


@dataclass
class _Count:
    num_rows: int
    first: int
    last: int
    example: str


class Findings:
    """Counts what is found, in bounded memory.

    Args:
        ignore: Called with the name of a column, or of a key within one, that nothing is read from.
    """

    def __init__(self, ignore: Callable[[str], None]) -> None:
        self.ignore = ignore
        self._counts: dict[Finding, _Count] = {}
        self.place = 0  # line of the row that is read, or its number in an array
        self.unit = "line"

    def add(self, finding: Finding, example: str = "") -> None:
        """Count the row at `place` among those of a kind, once."""
        count = self._counts.get(finding)
        if count is None:
            self._counts[finding] = _Count(1, self.place, self.place, example)
        elif count.last != self.place:
            count.num_rows, count.last = count.num_rows + 1, self.place

    def sentences(self) -> list[str]:
        """A sentence for each kind of finding, with the first line and the number of rows."""
        return [self._sentence(finding, count) for finding, count in self._counts.items()]

    def _sentence(self, finding: Finding, count: _Count) -> str:
        more = f" and {count.num_rows - 1:,} more" if count.num_rows > 1 else ""
        return finding.value.format(rows=f"{self.unit} {count.first}{more}", example=count.example)
