"""Seconds, kernel launches, busy share and host syncs of what runs on a device."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


def synchronize(device: str) -> None:
    """Wait for a device."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], device: str, repeats: int, num_warm_up: int = 2) -> float:
    """Median seconds of a call, with what it leaves to the device."""
    for _ in range(num_warm_up):
        call()
    found = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


@dataclass(frozen=True)
class Profile:
    """One call under the profiler.

    Args:
        num_launches: Kernel launches of the host; on a CPU, operators.
        kernel_s: Seconds in which the device computed at least one kernel; on a CPU None.
        top: The kernels or operators that took most, with their seconds.
    """

    num_launches: int
    kernel_s: float | None
    top: dict[str, float]


class Profiler:
    """Profiles what happens between `start` and `stop`."""

    def __init__(self, device: str) -> None:
        self._device = device
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)

    def start(self) -> None:
        synchronize(self._device)
        self._profiler.start()

    def stop(self) -> Profile:
        synchronize(self._device)
        self._profiler.stop()
        events = self._profiler.events() or []
        if self._device != "cuda":
            operators = [event for event in events if event.name.startswith("aten::")]
            return Profile(
                len(operators), None, _most([(each.name, each.self_cpu_time_total / 1e6) for each in operators])
            )
        kernels = [
            each
            for each in events
            if each.device_type == torch.autograd.DeviceType.CUDA and not _is_named_by_user(each)
        ]
        spans = [(each.time_range.start, each.time_range.end) for each in kernels]
        seconds = [(each.name, (each.time_range.end - each.time_range.start) / 1e6) for each in kernels]
        num_launches = sum(event.name in _LAUNCHES for event in events)
        return Profile(num_launches, _covered(spans) / 1e6, _most(seconds))


def profile_of(call: Callable[[], object], device: str) -> Profile:
    """Profile one call."""
    profiler = Profiler(device)
    profiler.start()
    call()
    return profiler.stop()


def _is_named_by_user(event: Any) -> bool:
    """Return whether an event is a span with a name, such as an optimizer's step, rather than a kernel or a copy."""
    return bool(getattr(event, "is_user_annotation", False))


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _most(seconds: list[tuple[str, float]], num: int = 12) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, each in seconds:
        total[name[:90]] = total.get(name[:90], 0.0) + each
    return dict(sorted(total.items(), key=lambda item: -item[1])[:num])


class SyncCount:
    """Counts the host's waits for the device between `start` and `stop`, as PyTorch warns of them."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._caught: Any = None
        self._recorder: Any = None

    def start(self) -> None:
        self._recorder = warnings.catch_warnings(record=True)
        self._caught = self._recorder.__enter__()
        warnings.simplefilter("always")
        if self._device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")

    def stop(self) -> int:
        if self._device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        self._recorder.__exit__(None, None, None)
        return sum("synchroniz" in str(each.message) for each in self._caught)
