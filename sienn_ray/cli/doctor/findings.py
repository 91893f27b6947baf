"""Findings of checks: a line each, and a way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Levels of a finding."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line.

    Args:
        level: How bad it is.
        words: What was found.
        way_out: What to do about it; nothing where all is well.
    """

    level: Level
    words: str
    way_out: str = ""

    def line(self, topic: str) -> str:
        """The line as it is printed."""
        way_out = f"; {self.way_out}" if self.way_out else ""
        return f"{self.level:<4}  {topic:<9}  {self.words}{way_out}"


def ok(words: str) -> Finding:
    """A finding that needs nothing."""
    return Finding(Level.OK, words)


def warn(words: str, way_out: str) -> Finding:
    """A finding that some of the work may meet."""
    return Finding(Level.WARN, words, way_out)


def fail(words: str, way_out: str) -> Finding:
    """A finding with which the service doesn't work."""
    return Finding(Level.FAIL, words, way_out)
