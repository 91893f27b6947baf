"""Real processes: what a core has started is gone once its parent is, however that comes about."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sienn_ray.inference.vllm_engine import watchdog
from sienn_ray.inference.vllm_engine.processes import CoreProcesses
from sienn_ray.settings import Settings

WAIT_S = 60.0
# Sleeps for an hour, whatever SIGTERM says, beside a process of its own that does so too, where it is told to have one.
CORE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    print(child.pid, flush=True)
time.sleep(3600)
"""
PARENT = f"""
import json, os, subprocess, sys, time
from sienn_ray.inference.vllm_engine.processes import CoreProcesses
processes = CoreProcesses()
with processes.environment({{}}):
    core = subprocess.Popen([sys.executable, "-c", {CORE!r}, "parent"], stdout=subprocess.PIPE, start_new_session=True)
child = int(core.stdout.readline())
print(json.dumps([core.pid, child]), flush=True)
if sys.stdin.readline() == "exit\\n":
    os._exit(1)
time.sleep(3600)
"""


def is_alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + WAIT_S
    pause = threading.Event()
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, processes
        pause.wait(0.02)


@pytest.fixture
def parent() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that has started a core of two processes, and the ids of these."""
    started = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout is not None
    processes = json.loads(started.stdout.readline())
    yield started, processes
    for process in [started.pid, *processes]:
        if is_alive(process):
            os.kill(process, signal.SIGKILL)
    started.wait()
    for stream in (started.stdin, started.stdout):
        assert stream is not None
        stream.close()


def test_a_parent_that_is_killed_leaves_no_process(parent: tuple[subprocess.Popen[str], list[int]]) -> None:
    started, processes = parent
    assert all(map(is_alive, processes))
    started.kill()
    wait_until_gone(processes)


def test_nor_does_one_whose_group_is_killed(parent: tuple[subprocess.Popen[str], list[int]]) -> None:
    started, processes = parent
    os.killpg(started.pid, signal.SIGKILL)
    wait_until_gone(processes)


def test_nor_does_one_that_ends_at_once(parent: tuple[subprocess.Popen[str], list[int]]) -> None:
    started, processes = parent
    assert started.stdin is not None
    started.stdin.write("exit\n")
    started.stdin.flush()
    wait_until_gone(processes)


def test_closing_ends_them_and_the_watchdog() -> None:
    processes = CoreProcesses()
    with processes.environment({"SIENN_TEST_VARIABLE": "1"}):
        child = subprocess.Popen([sys.executable, "-c", CORE])
    assert "SIENN_TEST_VARIABLE" not in os.environ
    assert watchdog.MARK not in os.environ
    assert processes.ids == [child.pid]
    processes.close()
    assert child.wait(WAIT_S) == -signal.SIGKILL
    assert processes.ids == []
    processes.close()


def children() -> list[str]:
    """Ids of the processes that this one has started, the watchdog among them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(folder.name)
    assert found
    return found


@pytest.mark.parametrize(
    "name",
    [
        *map(Settings.variable, Settings.secret_names()),
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "PGPASSWORD",
        "RAY_AUTH_TOKEN",
    ],
)
def test_secrets_are_not_handed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "s3cret")
    with contextlib.closing(CoreProcesses()) as processes, processes.environment({}):
        shown = subprocess.check_output([sys.executable, "-c", "import os; print(dict(os.environ))"], text=True)
        assert all(b"s3cret" not in Path(f"/proc/{child}/environ").read_bytes() for child in children())
    assert watchdog.MARK in shown
    assert "s3cret" not in shown
    assert os.environ[name] == "s3cret"


def test_what_only_sounds_like_a_secret_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"TOKENIZERS_PARALLELISM": "false", "VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "64"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(CoreProcesses()) as processes, processes.environment({}):
        assert chosen.items() <= os.environ.items()


def test_others_are_left_alone() -> None:
    one, other = CoreProcesses(), CoreProcesses()
    with other.environment({}):
        child = subprocess.Popen([sys.executable, "-c", CORE])
    one.kill()
    assert is_alive(child.pid)
    one.close()
    other.close()
    child.wait(WAIT_S)
