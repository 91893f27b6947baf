"""The script for a card, rehearsed: all its checks on the CPU with tiny shapes, and what it says of wrong numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
GPU = REPOSITORY / "benchmarks" / "gpu"
PINNED = (REPOSITORY / "constraints.txt", REPOSITORY / "benchmarks" / "peers" / "requirements.txt")
TIMEOUT_S = 1500.0

# A program with checks of its own, which go wrong in every way.
PROGRAM = f"""
import os, sys, threading
from pathlib import Path
sys.path.insert(0, {str(GPU)!r})
import check
from checks import Check, Figure, NotThere

def right(place):
    yield Figure("three", 3.0, "m", at_least=2.0, at_most=4.0)
    yield Figure("of a card", 1.0, at_least=2.0, is_goal=True)

def wrong(place):
    yield Figure("three", 3.0, at_most=2.0)
    yield Figure("no number", float("nan"), at_most=2.0)

def absent(place):
    yield NotThere("a part")
    raise NotThere("all of it")

def breaks(place):
    yield RuntimeError("a part broke")
    yield Figure("before", 1.0)
    raise ValueError("it broke")

def hangs(place):
    yield Figure("before", 1.0)
    threading.Event().wait()

def dies(place):
    yield Figure("before", 1.0)
    os._exit(7)

def ends(place):
    place.facts["card"] = "none"
    yield Figure("process", os.getpid())

def after(place):
    yield Figure("process", os.getpid())

CHECKS = (
    Check("right", right, 10.0),
    Check("wrong", wrong, 10.0),
    Check("absent", absent, 10.0),
    Check("breaks", breaks, 10.0),
    Check("hangs", hangs, 0.02),
    Check("dies", dies, 10.0),
    Check("ends", ends, 10.0, ends_process=True),
    Check("after", after, 10.0),
)
sys.exit(check.main(Path(__file__), CHECKS))
"""


@dataclass(frozen=True)
class Ran:
    """A run: its exit code, what it printed, and its JSON."""

    code: int
    printed: str
    document: dict[str, Any]

    def line(self, name: str) -> dict[str, Any]:
        found: dict[str, Any]
        (found,) = [line for line in self.document["lines"] if line["name"] == name]
        return found


def run(program: Path, folder: Path, *arguments: str) -> Ran:
    output = folder / "check.json"
    command = [sys.executable, str(program), "--rehearse", "--output", str(output), *arguments]
    ended = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert output.is_file(), ended.stderr
    return Ran(ended.returncode, ended.stdout + ended.stderr, json.loads(output.read_text()))


@pytest.fixture(scope="module")
def going_wrong(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("going-wrong")
    (folder / "program.py").write_text(PROGRAM)
    return run(folder / "program.py", folder)


def test_a_number_within_its_limits_passes(going_wrong: Ran) -> None:
    line = going_wrong.line("right: three")
    assert (line["status"], line["value"], line["unit"], line["limit"]) == ("pass", 3.0, "m", ">= 2 and <= 4")


def test_a_goal_for_a_card_is_not_judged_on_a_cpu(going_wrong: Ran) -> None:
    assert going_wrong.line("right: of a card")["status"] == "measured"


def test_a_wrong_number_fails_and_so_does_the_run(going_wrong: Ran) -> None:
    assert going_wrong.line("wrong: three")["status"] == "fail"
    assert going_wrong.line("wrong: no number")["status"] == "fail"
    assert going_wrong.code == 1
    assert "fail         wrong: three" in going_wrong.printed


def test_a_run_of_right_numbers_passes(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    found = run(tmp_path / "program.py", tmp_path, "--only", "right", "absent")
    assert (found.code, found.document["num_failed"]) == (0, 0)
    assert list(found.document["checks"]) == ["right", "absent"]


def test_what_is_not_there_is_neither_right_nor_wrong(going_wrong: Ran) -> None:
    lines = [line for line in going_wrong.document["lines"] if line["name"] == "absent"]
    assert [(line["status"], line["note"]) for line in lines] == [("not there", "a part"), ("not there", "all of it")]


@pytest.mark.parametrize(
    ("name", "words"), [("breaks", "ValueError: it broke"), ("hangs", "its limit"), ("dies", "ended with code 7")]
)
def test_a_check_that_goes_wrong_keeps_its_figures_and_no_other_from_running(
    going_wrong: Ran, name: str, words: str
) -> None:
    assert going_wrong.line(f"{name}: before")["value"] == 1.0
    line = [line for line in going_wrong.document["lines"] if line["name"] == name][-1]
    assert line["status"] == "fail"
    assert words in line["note"]
    assert going_wrong.line("after: process")["status"] == "measured"


def test_a_part_that_breaks_fails_alone(going_wrong: Ran) -> None:
    names = [line["name"] for line in going_wrong.document["lines"] if line["name"].startswith("breaks")]
    assert names == ["breaks", "breaks: before", "breaks"]
    assert "fail         breaks" in going_wrong.printed


def test_another_process_goes_on_where_a_check_has_altered_its_own(going_wrong: Ran) -> None:
    assert going_wrong.line("ends: process")["value"] != going_wrong.line("after: process")["value"]
    assert going_wrong.document["card"] == "none"


def test_what_there_was_no_time_for_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    found = run(tmp_path / "program.py", tmp_path, "--only", "right", "wrong", "--budget-s", "0")
    assert [(line["name"], line["status"]) for line in found.document["lines"]] == [
        ("right", "not reached"),
        ("wrong", "not reached"),
    ]
    assert found.code == 0
    assert "2 not reached" in found.printed


@pytest.mark.timeout(TIMEOUT_S)
def test_the_rehearsal(tmp_path: Path) -> None:
    """All checks run, none fails, and what isn't there has one of two reasons."""
    found = run(GPU / "check.py", tmp_path, "--budget-s", str(TIMEOUT_S))
    failed = [line for line in found.document["lines"] if line["status"] == "fail"]
    assert failed == [], (tmp_path / "check.log").read_text()[-5000:]
    assert found.code == 0
    expected = subprocess.run(
        [sys.executable, "-c", "import registry; print(*(each.name for each in registry.all_checks()), sep='\\n')"],
        check=True,
        capture_output=True,
        text=True,
        cwd=GPU,
    )
    assert list(found.document["checks"]) == expected.stdout.splitlines()
    for line in found.document["lines"]:
        assert line["status"] != "not there" or "no GPU" in line["note"] or "isn't installed" in line["note"], line
    with_figures = {line["name"].partition(":")[0] for line in found.document["lines"] if line["value"] is not None}
    absent = {line["name"] for line in found.document["lines"] if line["status"] == "not there"}
    assert set(found.document["checks"]) <= with_figures | absent
    assert found.document["versions"]["torch"]
    assert found.document.keys() == {
        "card", "versions", "facts", "is_rehearsal", "began_at", "seconds", "num_failed", "checks", "lines",
    }  # fmt: skip


def test_a_carried_package_has_one_version() -> None:
    """Either it stands where it is carried, or in one of the files that pip is told of."""
    pinned = {name for path in PINNED for name, is_pinned in _requirements(path) if is_pinned}
    for name, is_pinned in _requirements(GPU / "carried.txt"):
        assert (name in pinned) != is_pinned, name


def _requirements(path: Path) -> list[tuple[str, bool]]:
    """Name of each requirement, and whether it has a version."""
    lines = [line.partition("#")[0].partition(";")[0].strip() for line in path.read_text().splitlines()]
    parts = [re.match(r"([\w.-]+)(.*)", line) for line in filter(None, lines)]
    return [(part[1].lower().replace("_", "-"), bool(part[2])) for part in parts if part]
