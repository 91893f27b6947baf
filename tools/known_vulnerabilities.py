"""Looks for known vulnerabilities in the packages of constraints.txt: `python -m tools.known_vulnerabilities`.

pip-audit asks PyPI. Where that isn't reached, or is a mirror that knows none of the packages, this is said and nothing
fails. What is accepted stands in `ACCEPTED`, with its reason and the day after which it is to be looked at again.
"""

from __future__ import annotations

import datetime
import json
import subprocess  # nosec B404 # no shell, and no words of users
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[1] / "constraints.txt"
_TIMEOUT_S = 60.0
_NETWORK_WORDS = (
    "ConnectionError",
    "ConnectTimeout",
    "Connection refused",
    "ProxyError",
    "SSLError",
    "Name or service",
)


@dataclass(frozen=True)
class Acceptance:
    """A vulnerability that doesn't concern this project.

    Args:
        reason: Why.
        until: The last day on which that is taken for granted.
    """

    reason: str
    until: datetime.date


# By the id that pip-audit shows.
ACCEPTED: dict[str, Acceptance] = {}


@dataclass(frozen=True)
class Verdict:
    """The result in words, and whether it is a failure."""

    words: str
    is_failure: bool = False


def main() -> int:
    """Ask, say what was found, and return the exit code."""
    # --no-deps: the pins are complete, and nothing is to be resolved or installed.
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--format=json",
        "--progress-spinner=off",
        "--no-deps",
        "--disable-pip",
    ]
    try:
        result = subprocess.run(  # nosec B603 # no shell, and no words of users
            [*command, f"--requirement={PINS}"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        verdict = verdict_of(result.stdout, result.stderr)
    except subprocess.TimeoutExpired:
        verdict = Verdict(f"Vulnerabilities are NOT CHECKED: PyPI didn't answer within {_TIMEOUT_S:g} s.")
    print(verdict.words)
    return int(verdict.is_failure)


def verdict_of(
    output: str, errors: str, today: datetime.date | None = None, accepted: Mapping[str, Acceptance] = ACCEPTED
) -> Verdict:
    """Judge what pip-audit says.

    Args:
        output: Its JSON; anything else where it failed.
        errors: Its words.
        today: The day.
        accepted: Vulnerabilities that are accepted, by id.
    """
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if any(word in errors for word in _NETWORK_WORDS):
            return Verdict("Vulnerabilities are NOT CHECKED: PyPI can't be reached.")
        return Verdict(f"pip-audit failed:\n{errors[-2000:]}", is_failure=True)
    today = today or datetime.datetime.now(datetime.UTC).date()
    skipped = [str(each["name"]) for each in packages if "skip_reason" in each]
    if len(skipped) == len(packages):
        return Verdict(f"Vulnerabilities are NOT CHECKED: the index knows none of the {len(packages)} packages.")
    found = [line for each in packages for line in _found(each, today, accepted)]
    if found:
        return Verdict("\n".join(["Known vulnerabilities in constraints.txt:", *found]), is_failure=True)
    unknown = f"; the index doesn't know {', '.join(skipped)}" if skipped else ""
    return Verdict(f"No known vulnerabilities in {len(packages) - len(skipped)} packages{unknown}.")


def _found(package: Mapping[str, Any], today: datetime.date, accepted: Mapping[str, Acceptance]) -> list[str]:
    lines = []
    for each in package.get("vulns", ()):
        names = {each["id"], *each.get("aliases", ())}
        known = next((accepted[name] for name in sorted(names) if name in accepted), None)
        if known is not None and today <= known.until:
            continue
        fixed = ", ".join(each.get("fix_versions", ())) or "no version yet"
        late = f" (accepted until {known.until}: {known.reason})" if known else ""
        lines.append(f"  {package['name']} {package['version']}: {each['id']}, fixed in {fixed}{late}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
