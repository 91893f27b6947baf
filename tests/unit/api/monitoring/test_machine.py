from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from sienn_ray.api.monitoring.machine import CpuMeter, Memory, fullest_disk, memory
from sienn_ray.settings import GIB, MIB


class Groups:
    """A tree of control groups, version 2."""

    def __init__(self, folder: Path, own: str) -> None:
        self.root = folder / "cgroup"
        self.proc = folder / "self-cgroup"
        self.proc.write_text(f"4:memory:/elsewhere\n0::{own}\n")

    def put(self, path: str, **files: object) -> None:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_text(f"{content}\n")

    def memory(self) -> Memory:
        return memory(self.proc, self.root)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path, "/")


def test_without_control_groups_it_is_the_machine(tmp_path: Path) -> None:
    found = memory(tmp_path / "none", tmp_path / "none")
    assert found.total_bytes == psutil.virtual_memory().total
    assert 0 < found.available_bytes < found.total_bytes
    assert 0 < found.used_percent < 100


def test_lower_limit_of_the_container_counts(groups: Groups) -> None:
    groups.put("", memory_max=100 * MIB, memory_current=70 * MIB, memory_stat=f"anon 5\ninactive_file {10 * MIB}")
    found = groups.memory()
    assert (found.total_bytes, found.available_bytes) == (100 * MIB, 40 * MIB)
    assert found.used_percent == pytest.approx(60.0)


@pytest.mark.parametrize("limit", ["max", 10**18])
def test_limit_above_the_machine_changes_nothing(groups: Groups, limit: object) -> None:
    groups.put("", memory_max=limit, memory_current=MIB)
    assert groups.memory().total_bytes == psutil.virtual_memory().total


def test_every_group_above_the_process_limits_it(tmp_path: Path) -> None:
    groups = Groups(tmp_path, "/system.slice/sienn.service")
    groups.put("system.slice/sienn.service", memory_max=300 * MIB, memory_current=20 * MIB)
    groups.put("system.slice", memory_max=200 * MIB, memory_current=190 * MIB)
    groups.put("other.slice", memory_max=MIB, memory_current=MIB)
    found = groups.memory()
    assert (found.total_bytes, found.available_bytes) == (200 * MIB, 10 * MIB)


def test_group_over_its_limit_leaves_nothing(groups: Groups) -> None:
    groups.put("", memory_max=10 * MIB, memory_current=11 * MIB)
    assert groups.memory().used_percent == pytest.approx(100.0)


def test_files_that_make_no_sense_are_passed_over(groups: Groups) -> None:
    groups.put("", memory_max="", memory_current="much")
    assert groups.memory().total_bytes == psutil.virtual_memory().total


def test_disk_of_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    disk = fullest_disk([tmp_path / "a" / "b" / "c"])
    stat = os.statvfs(tmp_path)
    assert disk.total_bytes == stat.f_blocks * stat.f_frsize
    assert disk.free_percent == pytest.approx(100 - disk.used_percent)
    assert disk.free_bytes < 10**6 * GIB


def test_of_two_disks_the_fuller_one_counts(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("no second file system here")
    both = [fullest_disk([folder]).used_percent for folder in (tmp_path, shm)]
    assert fullest_disk([tmp_path, shm]).used_percent == max(both)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_cpu_is_measured_since_the_look_before(clock: Clock) -> None:
    meter = CpuMeter(clock)
    before = psutil.cpu_times()
    while sum(psutil.cpu_times()) - sum(before) < 0.2:  # of all cores, one of which this loop keeps busy
        pass
    clock.now = 1.0
    assert 0 < meter.percent() <= 100


def test_looks_close_to_each_other_give_the_same(clock: Clock) -> None:
    meter = CpuMeter(clock)
    clock.now = 5.0
    first = meter.percent()
    clock.now = 5.9
    assert meter.percent() == first


def test_nothing_is_claimed_before_a_second_has_passed(clock: Clock) -> None:
    assert CpuMeter(clock).percent() == 0.0
