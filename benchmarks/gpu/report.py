"""What the checks gave: a line each as it comes, and one JSON document in the end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checks import Figure, Status


@dataclass
class Report:
    """Collects events of checks.

    Args:
        is_rehearsal: Whether they ran on a CPU with tiny shapes, where goals for a card don't count.
        facts: Of the machine.
        lines: One for each figure, and one for each check without any.
        checks: Seconds of each check.
    """

    is_rehearsal: bool
    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, float] = field(default_factory=dict)
    began_at: float = field(default_factory=time.time)

    def take(self, event: dict[str, Any]) -> None:
        """Note an event, and print its line."""
        match event["event"]:
            case "figure":
                figure = Figure(**event["figure"])
                status = figure.status(is_rehearsal=self.is_rehearsal)
                self._line(status, f"{event['check']}: {figure.name}", figure=figure)
            case "error":
                self._line("fail", event["check"], note=event["text"])
            case "not there":
                self._line("not there", event["check"], note=event["text"])
            case "not reached":
                self._line("not reached", event["check"], note=event["text"])
            case "facts":
                self.facts |= event["facts"]
            case "end":
                self.checks[event["check"]] = round(event["seconds"], 2)

    def _line(self, status: Status, name: str, figure: Figure | None = None, note: str = "") -> None:
        value = None if figure is None else figure.value
        unit, limit = ("", "") if figure is None else (figure.unit, figure.limit)
        is_goal = figure is not None and figure.is_goal
        self.lines.append(
            {
                "name": name,
                "status": status,
                "value": value,
                "unit": unit,
                "limit": limit,
                "goal": is_goal,
                "note": note,
            }
        )
        number = "" if value is None else f"{value:,.6g} {unit}".strip()
        print(f"{status:11}  {name:62} {number:>24}  {limit or note}", flush=True)

    @property
    def num_failed(self) -> int:
        """Lines that failed."""
        return sum(line["status"] == "fail" for line in self.lines)

    def summary(self) -> str:
        """How many lines there are of each kind."""
        counts = {
            status: sum(line["status"] == status for line in self.lines)
            for status in ("pass", "fail", "measured", "not there", "not reached")
        }
        words = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"{len(self.checks)} checks in {time.time() - self.began_at:.0f} s: {words}"

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        document = {
            "card": self.facts.get("card"),
            "versions": self.facts.get("versions", {}),
            "facts": {name: value for name, value in self.facts.items() if name not in ("card", "versions")},
            "is_rehearsal": self.is_rehearsal,
            "began_at": self.began_at,
            "seconds": round(time.time() - self.began_at, 1),
            "num_failed": self.num_failed,
            "checks": self.checks,
            "lines": self.lines,
        }
        path.write_text(json.dumps(document, indent=2) + "\n")
