"""Commands about jobs."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from sienn_ray.cli import live
from sienn_ray.cli.client import JobId, answer, call, of
from sienn_ray.cli.output import print_json, print_line, print_table

_EVENTS_AT_ONCE = 1000
# Of ECMA-48, such as colours.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="pending, running, paused, completed, failed or cancelled jobs alone.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Jobs with this label, KEY=VALUE; may be given more than once.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The newest ones alone, 1 to 1000; all without it.")] = None,
) -> None:
    """List the jobs, the newest first."""
    given = {"status": status, "label": label, "limit": limit}
    answered = call("GET", "/api/jobs", params={name: value for name, value in given.items() if value is not None})
    print_table(answered["jobs"], ("job_id", "name", "status", "progress", "message", "created_at"))
    if len(answered["jobs"]) < answered["count"]:
        print_line(f"{len(answered['jobs'])} of {answered['count']}")


def status(job_id: JobId) -> None:
    """Show all that is known of a job."""
    print_json(call("GET", f"/api/jobs/{of(job_id)}"))


def cancel(job_id: JobId) -> None:
    """End a job that waits, runs or is paused."""
    _print_state(call("POST", f"/api/jobs/{of(job_id)}/cancel"))


def pause(job_id: JobId) -> None:
    """Pause a job that waits or runs; one that runs writes a checkpoint first."""
    _print_state(call("POST", f"/api/jobs/{of(job_id)}/pause"))


def resume(job_id: JobId) -> None:
    """Put a paused job back into the queue; it resumes from its last checkpoint."""
    _print_state(call("POST", f"/api/jobs/{of(job_id)}/resume"))


def retry(job_id: JobId) -> None:
    """Put a failed or cancelled job back into the queue; it resumes from its last checkpoint."""
    _print_state(call("POST", f"/api/jobs/{of(job_id)}/retry"))


def _print_state(job: dict[str, Any]) -> None:
    print_line(f"{job['status']}: {job['message']}")


def delete_job(job_id: JobId) -> None:
    """Delete a job that has ended, with its adapter."""
    call("DELETE", f"/api/jobs/{of(job_id)}")
    print_line(f"deleted: {job_id}")


def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended or is paused.")] = False,
    tail: Annotated[int, typer.Option(help="Lines at the most, the last ones.")] = 1000,
    attempt: Annotated[int | None, typer.Option(help="This attempt's log instead of the last one's.")] = None,
) -> None:
    """Print what a job's training program prints."""
    if follow and attempt is None and _print_live(job_id, tail):
        return
    query: dict[str, Any] = {"tail": tail, "follow": follow, **({} if attempt is None else {"attempt": attempt})}
    # A run may be silent for long.
    patience = {"read_timeout_s": None} if follow else {}
    with answer("GET", f"/api/jobs/{of(job_id)}/logs", params=query, **patience) as response:
        if sys.stdout.isatty():
            for chunk in response.iter_bytes():
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            return
        for line in response.iter_lines():
            _print_log_line(line)


def _print_live(job_id: str, tail: int) -> bool:
    """Print lines as they come, over connections that break; says whether there were any."""
    has_lines = False
    for name, data in live.follow(f"/api/events/jobs/{of(job_id)}?tail={tail}"):
        for line in data["lines"] if name == "log" else ():
            has_lines = True
            _print_log_line(line)
    return has_lines


def _print_log_line(line: str) -> None:
    # A file or another program has no use for colours.
    sys.stdout.write((line if sys.stdout.isatty() else _CONTROL_SEQUENCE.sub("", line)) + "\n")
    sys.stdout.flush()


def events(job_id: JobId) -> None:
    """List what happened to a job."""
    found: list[dict[str, Any]] = []
    after, is_last = 0, False
    while not is_last:
        page = call("GET", f"/api/jobs/{of(job_id)}/events", params={"after": after, "limit": _EVENTS_AT_ONCE})
        found += page["events"]
        after, is_last = page["next_after"], len(page["events"]) < _EVENTS_AT_ONCE
    print_table(found, ("created_at", "kind", "message"))
