from __future__ import annotations

import subprocess
import sys
import time

import pytest

PROGRAM = """
import atexit, os, signal, threading, time
from sienn_ray.training.stopping import leave_on_sigterm

def release():
    {release}

atexit.register(print, "the long way out", flush=True)
leave_on_sigterm(release)
os.kill(os.getpid(), signal.SIGTERM)
try:
    time.sleep(60)
except BaseException as error:
    print("taken for a failure", type(error), flush=True)
"""


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("print('released', flush=True)", "released\n"),
        ("raise RuntimeError('the cluster is away')", ""),
        ("time.sleep(60)", ""),
    ],
)
def test_a_stopped_program_lets_go_and_is_gone(release: str, said: str) -> None:
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(release=release)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (143, said)
    assert "stopped from outside" in ended.stderr
    assert time.monotonic() - started < 30
