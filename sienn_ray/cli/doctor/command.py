"""The command: every check with a deadline, its line, and an exit code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import typer
from pydantic import ValidationError

from sienn_ray.cli.doctor import hub, machine, places, ports
from sienn_ray.cli.doctor.findings import Finding, Level, fail
from sienn_ray.cli.output import print_line
from sienn_ray.settings import Settings, fault_words

_DEADLINE_S = 15.0

Check = tuple[str, Callable[[], Finding]]


def doctor() -> None:
    """Check whether this machine can serve, without a running service; exits with 1 where it can't."""
    try:
        settings: Settings | None = Settings()
    except ValidationError as error:
        settings = None
        print_line(fail(fault_words(error), "correct it in the environment").line("settings"))
    findings = examined(checks_of(settings))
    if settings is None or any(finding.level is Level.FAIL for finding in findings):
        raise typer.Exit(1)


def checks_of(settings: Settings | None) -> list[Check]:
    """All checks; without settings, those that need none."""
    plain: list[Check] = [
        ("python", machine.check_python),
        ("packages", machine.check_packages),
        ("cpus", machine.check_cpus),
        ("memory", machine.check_memory),
        ("gpus", machine.check_gpus),
        ("models", hub.check_base_models),
        ("dashboard", ports.check_dashboard_port),
    ]
    if settings is None:
        return plain
    return [
        *plain,
        ("hub", lambda: hub.check_hub(settings)),
        ("port", lambda: ports.check_port(settings)),
        ("home", lambda: places.check_home(settings)),
        ("storage", lambda: places.check_storage(settings)),
        ("database", lambda: places.check_database(settings)),
    ]


def examined(checks: Sequence[Check], deadline_s: float = _DEADLINE_S) -> list[Finding]:
    """Run all checks at the same time, and print the line of each in order, however others hang."""
    found: dict[str, Finding] = {}
    threads = [threading.Thread(target=_examine, args=(check, found), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    findings = []
    for (topic, _), thread in zip(checks, threads, strict=True):
        thread.join(deadline_s)
        late = fail(f"no answer within {deadline_s:g} s", "look at what it asks for: network, disk or server")
        finding = found.get(topic, late)
        print_line(finding.line(topic))
        findings.append(finding)
    return findings


def _examine(check: Check, found: dict[str, Finding]) -> None:
    topic, look = check
    try:
        found[topic] = look()
    except Exception as error:  # its words may hold what nobody should read
        found[topic] = fail(f"couldn't be checked ({type(error).__name__})", "report this as a bug")
