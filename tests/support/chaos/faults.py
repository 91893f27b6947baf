"""Processes of a service that may be killed or suspended, by what they do."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

# How command lines begin. A cluster of one node doesn't survive its raylet or its GCS, so they aren't here.
TITLES = {
    "proxy": "ray::ProxyActor",
    "controller": "ray::ServeController",
    "ingress": "ray::ServeReplica:sienn:",
    "tracker": "ray::JobTracker",
    "engine": "ray::ServeReplica:engine-",
    "train controller": "ray::TrainController",
    "worker": "ray::RayTrainWorker",
    "export": "ray::export ",
}
DRIVER = "driver"
KINDS = (*TITLES, DRIVER)
SUSPENDED_S = (2.0, 8.0)


@dataclass(frozen=True)
class Fault:
    """One thing done to one process.

    Args:
        kind: Among `KINDS`.
        suspended_s: How long it was suspended; None for a kill.
        at_s: When, on the monotonic clock.
    """

    kind: str
    suspended_s: float | None
    at_s: float

    @property
    def name(self) -> str:
        return f"{self.kind} {'killed' if self.suspended_s is None else 'suspended'}"


def processes_by_kind(root_pid: int) -> dict[str, list[psutil.Process]]:
    """Living processes under a service's own one; kinds without any are left out."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process(root_pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            kind = kind_of(process.cmdline())
            if kind is not None:
                found.setdefault(kind, []).append(process)
    return found


def kind_of(command_line: Sequence[str]) -> str | None:
    """The kind of process that a command line is, if it may be touched.

    Example:
        >>> kind_of(["ray::ServeController.listen_for_change"])
        'controller'
        >>> kind_of(["/usr/bin/python3", "-m", "sienn_ray.train", "--job-id", "1"])
        'driver'
        >>> kind_of(["/bin/sh", "-c", "python3 -m sienn_ray.train --job-id 1"])
    """
    if list(command_line[1:3]) == ["-m", "sienn_ray.train"]:
        return DRIVER
    line = " ".join(command_line)
    return next((kind for kind, title in TITLES.items() if line.startswith(title)), None)


def inflict(root_pid: int, kinds: Sequence[str], chance: random.Random, share_suspended: float) -> Fault | None:
    """Kill a process of a random kind, or suspend it for some seconds; None if there was nothing to touch."""
    by_kind = {kind: found for kind, found in processes_by_kind(root_pid).items() if kind in kinds}
    if not by_kind:
        return None
    kind = chance.choice(sorted(by_kind))
    process = chance.choice(by_kind[kind])
    suspended_s = chance.uniform(*SUSPENDED_S) if chance.random() < share_suspended else None
    at_s = time.monotonic()
    try:
        if suspended_s is None:
            process.kill()
        else:
            process.send_signal(signal.SIGSTOP)
            time.sleep(suspended_s)
            process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return None  # it has ended by itself meanwhile
    return Fault(kind, suspended_s, at_s)
