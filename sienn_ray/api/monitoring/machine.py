"""CPU, memory and disk of this machine, or of the container that limits it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROC_CGROUP = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CPU_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    Args:
        total_bytes: What there is, or may be used.
        available_bytes: What can still be had without swapping.
    """

    total_bytes: int
    available_bytes: int

    @property
    def used_percent(self) -> float:
        """Share that is in use."""
        return 100.0 * (1 - self.available_bytes / self.total_bytes)


@dataclass(frozen=True)
class Disk:
    """A disk in bytes; `used_percent` counts what is reserved for root as used."""

    total_bytes: int
    free_bytes: int
    used_percent: float

    @property
    def free_percent(self) -> float:
        """Share that is free."""
        return 100.0 - self.used_percent


class CpuMeter:
    """CPU in use on all cores together, between two readings; at the first one, since the meter was made.

    Args:
        clock: Seconds, only ever rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = clock()
        self._busy_s, self._total_s = _cpu_times()
        self._percent = 0.0

    def percent(self) -> float:
        """Return the percentage in use. A reading within a second of the one before gives the same again, not noise."""
        if self._clock() - self._read_at >= _CPU_INTERVAL_S:
            self._read_at = self._clock()
            busy_s, total_s = _cpu_times()
            if total_s > self._total_s:
                self._percent = 100.0 * (busy_s - self._busy_s) / (total_s - self._total_s)
            self._busy_s, self._total_s = busy_s, total_s
        return min(100.0, max(0.0, self._percent))


def _cpu_times() -> tuple[float, float]:
    """Seconds that all cores were busy, and all seconds. psutil.cpu_percent would count for each thread apart."""
    times = psutil.cpu_times()._asdict()
    # Linux counts virtual machines' time as its own as well.
    total_s = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total_s - times["idle"] - times.get("iowait", 0.0), total_s


def memory(proc_cgroup: Path = _PROC_CGROUP, cgroup_root: Path = _CGROUP_ROOT) -> Memory:
    """Memory of the machine, or what the control groups of this process leave of it."""
    machine = psutil.virtual_memory()
    total_bytes, available_bytes = int(machine.total), int(machine.available)
    for limit_bytes, used_bytes in _cgroup_limits(proc_cgroup, cgroup_root):
        total_bytes = min(total_bytes, limit_bytes)
        available_bytes = min(available_bytes, max(0, limit_bytes - used_bytes))
    return Memory(total_bytes, available_bytes)


def _cgroup_limits(proc_cgroup: Path, cgroup_root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of every control group around this process that has a limit.

    See https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files.
    """
    for folder in _cgroup_folders(proc_cgroup, cgroup_root):
        limit_bytes = _number(folder / "memory.max")
        if limit_bytes:
            # The page cache counts as used there, though the kernel gives it back when it is needed.
            used_bytes = (_number(folder / "memory.current") or 0) - _inactive_file_bytes(folder / "memory.stat")
            yield limit_bytes, max(0, used_bytes)


def _cgroup_folders(proc_cgroup: Path, cgroup_root: Path) -> list[Path]:
    """The process's own group and all above it. In a container, its own is usually the root of what is visible."""
    own = next((line[3:] for line in _lines(proc_cgroup) if line.startswith("0::/")), "/")
    folder = cgroup_root / own.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(cgroup_root))]


def _inactive_file_bytes(path: Path) -> int:
    line = next((line for line in _lines(path) if line.startswith("inactive_file ")), "inactive_file 0")
    return int(line.split()[1])


def _number(path: Path) -> int | None:
    """A file's number, or None where there is none: no such file, or the word `max`."""
    words = "".join(_lines(path)).strip()
    return int(words) if words.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def fullest_disk(folders: Iterable[Path]) -> Disk:
    """Of the disks that hold some folders, the one with the smallest share free."""
    disks = [psutil.disk_usage(str(_existing(folder))) for folder in folders]
    fullest = max(disks, key=lambda disk: disk.percent)
    return Disk(int(fullest.total), int(fullest.free), float(fullest.percent))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(path for path in (folder, *folder.parents) if path.exists())
