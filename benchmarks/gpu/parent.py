"""Runs checks in processes of their own: one that hangs or ends its process doesn't keep the others from running."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks import Check

# A CPU of a busy machine is that much slower at the tiny shapes than a card is at the real ones.
_REHEARSAL_FACTOR = 10.0
# Until the first check begins: Python, torch and transformers are imported, the device is opened.
_START_S = 120.0


@dataclass(frozen=True)
class Plan:
    """Which checks are run, and how.

    Args:
        checks: In order.
        program: The script that runs them; it starts itself for that.
        is_rehearsal: Whether on a CPU, with tiny shapes.
        scratch: Folder for what they write.
        log: File for all that libraries print.
        budget_s: Time for all of them.
    """

    checks: Sequence[Check]
    program: Path
    is_rehearsal: bool
    scratch: Path
    log: Path
    budget_s: float


def run_all(plan: Plan) -> Iterator[dict[str, Any]]:
    """Run all checks; gives their events as they come, an `end` for each check."""
    end_at = time.time() + plan.budget_s
    left = list(plan.checks)
    while left:
        for event in _run_in_process(plan, left, end_at):
            yield event
            if event["event"] == "end":
                left = left[1:]


def _run_in_process(plan: Plan, checks: Sequence[Check], end_at: float) -> Iterator[dict[str, Any]]:
    """Run checks in one process until it ends, or until one of them has to be ended."""
    read_end, write_end = os.pipe()
    command = [sys.executable, str(plan.program), "--scratch", str(plan.scratch)]
    command += ["--pipe", str(write_end), "--end-at", str(end_at)] + (["--rehearse"] if plan.is_rehearsal else [])
    command += ["--only", *[check.name for check in checks]]
    with plan.log.open("a") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, pass_fds=[write_end], env=_environment(plan)
        )
    os.close(write_end)
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(read_end, events), daemon=True).start()
    try:
        yield from _watched(events, process, checks, plan, end_at)
    finally:
        process.kill()
        process.wait()


def _watched(
    events: queue.SimpleQueue[dict[str, Any] | None],
    process: subprocess.Popen[bytes],
    checks: Sequence[Check],
    plan: Plan,
    end_at: float,
) -> Iterator[dict[str, Any]]:
    limits = {check.name: check.limit_s * (_REHEARSAL_FACTOR if plan.is_rehearsal else 1.0) for check in checks}
    current, num_ended, wait_s, is_running = checks[0].name, 0, _START_S, False
    while num_ended < len(checks):
        began = time.monotonic()
        try:
            event = events.get(timeout=max(wait_s, 0.0))
        except queue.Empty:
            yield _cut_short(current, limits[current], is_running=is_running, is_over=time.time() >= end_at)
            yield {"event": "end", "check": current, "seconds": limits[current]}
            return
        if event is None and num_ended and not is_running:
            return  # another process goes on
        if event is None:
            yield {"event": "error", "check": current, "text": f"its process ended with code {process.wait()}"}
            yield {"event": "end", "check": current, "seconds": 0.0}
            return
        wait_s -= time.monotonic() - began
        if event["event"] == "begin":
            current, is_running = event["check"], True
            wait_s = min(limits[current], max(end_at - time.time(), 1.0))
        elif event["event"] == "end":
            num_ended, is_running = num_ended + 1, False
            current = checks[min(num_ended, len(checks) - 1)].name
            wait_s = _START_S
        yield event


def _cut_short(check: str, limit_s: float, *, is_running: bool, is_over: bool) -> dict[str, Any]:
    """Return the event of a check that had to be ended."""
    if is_running and is_over:
        return {"event": "not reached", "check": check, "text": "the time for all checks was over before its end"}
    why = f"ended after {limit_s:g} s, its limit" if is_running else "its process never began"
    return {"event": "error", "check": check, "text": why}


def _read(pipe: int, events: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    with os.fdopen(pipe) as lines:
        for line in lines:
            events.put(json.loads(line))
    events.put(None)


def _environment(plan: Plan) -> dict[str, str]:
    """Nothing is asked of a hub, and the models that checks write are what it has."""
    return {
        **os.environ,
        "HF_HOME": str(plan.scratch / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
