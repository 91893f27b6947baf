"""The health of a running service."""

from __future__ import annotations

from typing import Any

import typer

from sienn_ray.cli.client import call
from sienn_ray.cli.output import print_line

_SHOWN_FIRST = ("status", "implementation", "role", "response_time_ms", "detail")


def health() -> None:
    """Show every part of the service, and how it is; exits with 1 where it is unhealthy."""
    found = call("GET", "/api/health/services")
    for name, part in found["services"].items():
        print_line(line_of(name, part))
    print_line(found["status"])
    if found["status"] == "unhealthy":
        raise typer.Exit(1)


def line_of(name: str, part: dict[str, Any]) -> str:
    """One part in a line, whatever facts it has."""
    told = [f"{part['response_time_ms']:g} ms"] if part.get("response_time_ms") is not None else []
    told += [str(part[field]) for field in ("role", "detail") if part.get(field)]
    told += [
        f"{field} {value}"
        for field, value in part.items()
        if field not in _SHOWN_FIRST and isinstance(value, int | float | str)
    ]
    return f"{part['status']:<9}  {part.get('implementation') or name}: {', '.join(told)}"
