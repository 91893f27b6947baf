"""The start of Ray on a machine that is too slow for the time that Ray gives a node."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import local_cluster as under_test
from deployments.local_cluster import ClusterStartError, LocalCluster

UP = "print('Ray runtime started.', flush=True); import signal; signal.pause()"
TOO_SLOW = "print('Exception: The current node timed out during startup. This could happen')"
BROKEN = "print('no space left on device')"


def start_programs(monkeypatch: pytest.MonkeyPatch, programs: list[str]) -> list[subprocess.Popen[bytes]]:
    """Have Ray's starts be these programs, one after the other; gives their processes as they are started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(home: Path, log_path: Path) -> tuple[subprocess.Popen[bytes], LocalCluster]:
        with log_path.open("wb") as log:
            program = programs[len(started)]
            process = subprocess.Popen([sys.executable, "-c", program], stdout=log)
        started.append(process)
        return process, LocalCluster(f"start {len(started)}", "")

    monkeypatch.setattr(under_test, "_start", start)
    return started


@pytest.mark.parametrize(("programs", "address"), [([UP], "start 1"), ([TOO_SLOW, UP], "start 2")])
def test_a_start_that_took_too_long_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: list[str], address: str
) -> None:
    started = start_programs(monkeypatch, programs)
    with contextlib.ExitStack() as stack:
        assert under_test._start_patiently(tmp_path, tmp_path / "ray.log", stack).address == address
    assert [process.poll() is not None for process in started] == [True] * len(programs)


@pytest.mark.parametrize(
    ("programs", "words"), [([BROKEN], "no space left"), ([TOO_SLOW, TOO_SLOW], "timed out during startup")]
)
def test_what_else_goes_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: list[str], words: str
) -> None:
    started = start_programs(monkeypatch, programs)
    with pytest.raises(ClusterStartError, match=words), contextlib.ExitStack() as stack:
        under_test._start_patiently(tmp_path, tmp_path / "ray.log", stack)
    assert len(started) == len(programs)
