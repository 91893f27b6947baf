"""Durations on the command line, as in 90d."""

from __future__ import annotations

import re

from sienn_ray.cli.client import end

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FORM = re.compile(r"([0-9]{1,9})([smhd])")


def seconds(duration: str, option: str) -> int:
    """Return the seconds of a duration; ends the program where it is none.

    Args:
        duration: A number with its unit, as in 90d, 12h, 30m or 10s.
        option: The option that has it, for the message.
    """
    match = _FORM.fullmatch(duration)
    if match is None:
        end(f"{option} is '{duration}', but must be a number with a unit, as in 90d, 12h, 30m or 10s")
    return int(match[1]) * _UNITS_S[match[2]]
