"""A check, the figures that it gives, and how they are judged. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["pass", "fail", "measured", "not there", "not reached"]


class NotThere(Exception):  # noqa: N818
    """A check that can't be done here, with the reason: a library or a card that isn't there."""


@dataclass(frozen=True)
class Figure:
    """A number, and what it has to be.

    Args:
        name: What it is, within its check.
        value: The number.
        unit: Of the number.
        at_least: Lowest number that passes.
        at_most: Highest number that passes.
        is_goal: Whether the limit is a goal for a card, which a rehearsal on a CPU isn't judged by.
    """

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    is_goal: bool = False

    def status(self, *, is_rehearsal: bool) -> Status:
        """Judge the number; one that isn't finite never passes."""
        if not math.isfinite(self.value):
            return "fail"
        if (self.at_least is None and self.at_most is None) or (self.is_goal and is_rehearsal):
            return "measured"
        is_low = self.at_least is not None and self.value < self.at_least
        is_high = self.at_most is not None and self.value > self.at_most
        return "fail" if is_low or is_high else "pass"

    @property
    def limit(self) -> str:
        """The limit in words; empty where there is none."""
        words = [f">= {self.at_least:g}"] if self.at_least is not None else []
        words += [f"<= {self.at_most:g}"] if self.at_most is not None else []
        return " and ".join(words)


@dataclass
class Place:
    """Where checks run.

    Args:
        device: Name of the device, `cuda` or `cpu`.
        is_rehearsal: Whether shapes are tiny, to try the checks themselves.
        scratch: A folder for what checks write.
        facts: Of the machine, for the report.
        kept: What one check leaves for those behind it in the same process.
    """

    device: str
    is_rehearsal: bool
    scratch: Path
    facts: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def needs_card(self, why: str) -> None:
        """Leave a check out where there is no GPU.

        Raises:
            NotThere: There is none.
        """
        if self.device != "cuda":
            raise NotThere(f"no GPU: {why}")


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        name: Its name, `group/subject`.
        run: Gives its figures one by one, so that those before an error or a time limit are kept. An error that it
            gives rather than raises, `NotThere` or another, is one of a part, and the rest of the check goes on.
        limit_s: Longest time, on a card.
        ends_process: Whether the checks behind it run in another process, since a library has altered this one.
    """

    name: str
    run: Callable[[Place], Iterator[Figure | Exception]]
    limit_s: float
    ends_process: bool = False
