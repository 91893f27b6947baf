"""The one thread of a process that computes, so that OpenMP's workers spin between parallel regions.

PyTorch's CPU builds bring GNU's OpenMP (libgomp), which keeps a team of workers for each thread that opens parallel
regions. While all teams together have no more threads than there are CPUs, a worker that is done with a region spins
for the next one; with one thread more every worker goes to sleep at once, and each region begins with waking it
(libgomp's manual on GOMP_SPINCOUNT). A decoding step has some 600 regions. So one thread of a process computes,
whichever that is, and all others that touch tensors compute with a single OpenMP thread, which opens no team.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

_Result = TypeVar("_Result")

# Looks at how workers wait, of which the calmest counts: a CPU that another process has lets a worker fall asleep.
_LOOKS = 3
# Parallel regions of a look, and values in each: enough that PyTorch shares them out.
_LOOK_REGIONS = 50
_LOOK_VALUES = 1 << 17
# Between two regions of a look. libgomp has a worker look 1,000 times for the next region, some 50 us, where it counts
# more threads than CPUs, and 300,000 times else.
_LOOK_PAUSE_S = 3e-4
# A worker that spins doesn't sleep in these pauses, one that has to be woken sleeps in each.
_MANY_SLEEPS_PER_REGION = 0.5

# Of the time between two looks that the computing thread waited for a CPU. Another process that computes takes half of
# it, the processes around an engine that answers through HTTP a tenth.
_WAIT_SHARE_TO_SLEEP = 0.25
_WAIT_SHARE_TO_SPIN = 0.1
_LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True)
class ComputeSetup:
    """The OpenMP setup of a process, as its computing thread sees it.

    Args:
        openmp: OpenMP runtime that PyTorch uses, such as `libgomp`; None where that can't be told.
        num_threads: OpenMP threads of the calling thread.
        is_compute_thread: Whether the calling thread is the one that claimed to compute.
        wait_policy: `OMP_WAIT_POLICY`, or None for the runtime's own.
        spin_count: `GOMP_SPINCOUNT`, or None for the runtime's own.
        sleeps_per_region: Times that a worker went to sleep to wait for the next parallel region, over the regions of
            a short look: near 0 where workers spin, near 1 where they sleep; None where it can't be told.
    """

    openmp: str | None
    num_threads: int
    is_compute_thread: bool
    wait_policy: str | None
    spin_count: str | None
    sleeps_per_region: float | None

    @property
    def is_waking_workers(self) -> bool:
        """Return whether every parallel region has to wake its workers."""
        return self.sleeps_per_region is not None and self.sleeps_per_region >= _MANY_SLEEPS_PER_REGION

    def __str__(self) -> str:
        runtime = self.openmp or "an unknown OpenMP runtime"
        waiting = "wake up for each parallel region" if self.is_waking_workers else "spin between parallel regions"
        return f"{self.num_threads} thread(s) of {runtime}" + (f", which {waiting}" if self.num_threads > 1 else "")


_TASKS = Path("/proc/self/task")
_VOLUNTARY_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)

_compute_thread_id: int | None = None


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute_here(num_threads: int) -> None:
    """Make the calling thread the one that computes in this process.

    Args:
        num_threads: OpenMP threads, itself included. Ray sets OMP_NUM_THREADS from what an actor reserves, which is 1
            where it reserves no whole CPU.
    """
    global _compute_thread_id
    _set_threads(num_threads)
    _compute_thread_id = threading.get_native_id()


def compute_alone() -> None:
    """Have the calling thread compute without workers; for every thread but the computing one."""
    _set_threads(1)


def _set_threads(num_threads: int) -> None:
    # A thread takes over what was set last, by any thread, at its first look; so look first.
    torch.get_num_threads()
    torch.set_num_threads(num_threads)


def observe() -> ComputeSetup:
    """Return how the calling thread computes; takes some milliseconds for a look at how workers wait."""
    return ComputeSetup(
        openmp=_openmp_runtime(),
        num_threads=torch.get_num_threads(),
        is_compute_thread=threading.get_native_id() == _compute_thread_id,
        wait_policy=os.environ.get("OMP_WAIT_POLICY"),
        spin_count=os.environ.get("GOMP_SPINCOUNT"),
        sleeps_per_region=_sleeps_per_region(),
    )


class _SymbolInfo(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_: ClassVar = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def _openmp_runtime() -> str | None:
    """Name of the library that answers PyTorch's calls of OpenMP, up to the first dot or dash."""
    try:
        process = ctypes.CDLL(None)
        info = _SymbolInfo()
        process.dladdr(ctypes.cast(process.omp_get_max_threads, ctypes.c_void_p), ctypes.byref(info))
    except (AttributeError, OSError, TypeError):
        return None
    return re.split(r"[.-]", Path(info.file.decode()).name)[0] if info.file else None


def _sleeps_per_region() -> float | None:
    if not _TASKS.is_dir():
        return None
    x = torch.ones(_LOOK_VALUES)
    x.mul_(1.0)  # makes the team
    found = []
    for _ in range(_LOOKS):
        before = _sleeps_of_other_threads()
        for _ in range(_LOOK_REGIONS):
            x.mul_(1.0)
            pause_ends_s = time.perf_counter() + _LOOK_PAUSE_S
            while time.perf_counter() < pause_ends_s:
                pass  # keeps its CPU, as the code between two regions of a step does
        after = _sleeps_of_other_threads()
        # Only a worker goes to sleep as often as there are regions.
        sleeps = [number - before[thread] for thread, number in after.items() if thread in before]
        found.append(max(sleeps, default=0) / _LOOK_REGIONS)
    return min(found)


def _sleeps_of_other_threads() -> dict[str, int]:
    """Times that each other thread of this process has given up its CPU to wait."""
    own = str(threading.get_native_id())
    sleeps = {}
    for status in _TASKS.glob("*/status"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            match = _VOLUNTARY_SWITCHES.search(status.read_text())
            if match and status.parent.name != own:
                sleeps[status.parent.name] = int(match[1])
    return sleeps


class SpinControl:
    """Has the workers of the computing thread sleep, rather than spin, while other processes want the same CPUs.

    A worker that spins takes a CPU's time from whoever else could use it, another process in the same state included:
    on two CPUs, serving beside training took more than twice as long for it. How long the computing thread had to wait
    for a CPU is what the kernel counts (`schedstat`). What libgomp does is settled by how many threads it counts, so a
    parked thread with a team of its own has workers sleep, and its end has them spin again.

    Args:
        wait_s: Gives the seconds that the calling thread has waited for a CPU so far, or None where nobody counts.
        clock: Gives seconds.
    """

    def __init__(
        self, wait_s: Callable[[], float | None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wait_s = wait_s or cpu_wait_s
        self._clock = clock
        self._since: tuple[float, float] | None = None
        self._parked: _ParkedTeam | None = None

    @property
    def is_sleeping(self) -> bool:
        """Return whether workers sleep."""
        return self._parked is not None

    def look(self) -> None:
        """Measure now and then if other processes want the CPUs; called by the computing thread between two steps."""
        now_s = self._clock()
        if self._since is not None and now_s - self._since[0] < _LOOK_INTERVAL_S:
            return
        wait_s = self._wait_s()
        if wait_s is None:
            return
        before, self._since = self._since, (now_s, wait_s)
        if before is None:
            return
        share = (wait_s - before[1]) / (now_s - before[0])
        if share > _WAIT_SHARE_TO_SLEEP and self._parked is None:
            self._parked = _ParkedTeam()
        elif share < _WAIT_SHARE_TO_SPIN and self._parked is not None:
            self.end()

    def end(self) -> None:
        """Have workers spin again."""
        if self._parked is not None:
            self._parked.end()
            self._parked = None


class _ParkedTeam:
    """A thread that has a team, and does nothing."""

    def __init__(self) -> None:
        # One thread more, in all, than there are CPUs.
        num_threads = usable_cpus() - torch.get_num_threads() + 2
        self._is_over = threading.Event()
        is_there = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(num_threads, is_there), name="parked", daemon=True)
        self._thread.start()
        is_there.wait()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self, num_threads: int, is_there: threading.Event) -> None:
        _set_threads(num_threads)
        torch.ones(_LOOK_VALUES).mul_(1.0)
        is_there.set()
        self._is_over.wait()


def cpu_wait_s() -> float | None:
    """Seconds that the calling thread was ready to run and had no CPU; None where the kernel doesn't say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


class ComputeThread:
    """A daemon thread that is the one that computes in this process, and runs what it is given, one after the other.

    Args:
        name: Of the thread.
        num_threads: OpenMP threads, itself included.

    Example:
        >>> engine = ComputeThread("engine", num_threads=1)
        >>> engine.run(lambda: torch.ones(2).sum().item())
        2.0
        >>> engine.end()
    """

    def __init__(self, name: str, num_threads: int) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(num_threads,), name=name, daemon=True)
        self._thread.start()

    def start(self, call: Callable[[], _Result]) -> Future[_Result]:
        """Queue a call."""
        future: Future[_Result] = Future()
        self._calls.put((future, call))
        return future

    def run(self, call: Callable[[], _Result]) -> _Result:
        """Wait for a call's result; what it raises is raised here."""
        return self.start(call).result()

    def end(self) -> None:
        """Wait until everything that was queued is done, and end the thread."""
        self._calls.put(None)
        self._thread.join()

    def _run(self, num_threads: int) -> None:
        compute_here(num_threads)
        while (entry := self._calls.get()) is not None:
            future, call = entry
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del entry, future, call  # or their results would stay until the next call
