"""How a process computes, seen from inside one that is started for it: OpenMP's teams stay as long as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

NUM_THREADS = 2
NEEDS_CPUS = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU computes in one thread anyway")
TIMEOUT_S = 200.0

_PREAMBLE = """
import dataclasses, json, threading, torch
from concurrent.futures import ThreadPoolExecutor
from sienn_ray.compute_threads import ComputeThread, compute_alone, observe

def show(setup):
    print(json.dumps({**dataclasses.asdict(setup), "is_waking_workers": setup.is_waking_workers}))

def compute():
    torch.ones(1 << 20).exp()

def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
"""


def seen(program: str, **variables: str) -> list[dict[str, Any]]:
    """All that a program shows with `show(observe())`.

    Args:
        program: Its code.
        variables: Of its environment.
    """
    ended = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + program],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **variables},
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
