"""Faults at random beside probes and users, for some minutes."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.support.chaos.faults import Fault, inflict
from tests.support.chaos.probes import Probe, api_probes
from tests.support.chaos.users import Acknowledged, users
from tests.support.chaos.verdict import faults_found

# Of the service. A run that is killed every quarter of a minute is killed three times in a row by chance, and a job
# that fails then, as the default has it, is none that was lost.
SETTINGS = {"SIENN_MAX_ATTEMPTS": "20", "SIENN_TRAINING_MAX_FAILURES": "20"}
# Between a fault's recovery and the next fault.
PAUSE_S = (3.0, 10.0)
STEADY_S = 2.0
LONGEST_RECOVERY_S = 90.0
# For jobs to end once nothing happens any more. A stuck one never ends, so this may be long.
LONGEST_END_S = 600.0
# Probes see a fault within this time, if they see it at all.
NOTICED_S = 6.0


class Worker(Protocol):
    """What works in a thread until an event is set."""

    def run(self, is_over: threading.Event) -> None:
        """Work until then."""
        ...


@dataclass
class Outcome:
    """What came of it.

    Args:
        recoveries: Seconds until the API answered again after each fault, infinite if it didn't; by the fault's name.
        seen: What users had acknowledged, and how their requests went.
        probes: The probes, with all their looks.
        faults: Sentences on what is lost, twice, stuck or mute.
    """

    recoveries: dict[str, list[float]] = field(default_factory=dict)
    seen: Acknowledged = field(default_factory=Acknowledged)
    probes: Sequence[Probe] = ()
    faults: list[str] = field(default_factory=list)

    @property
    def num_faults(self) -> int:
        return sum(map(len, self.recoveries.values()))

    def lines(self) -> Iterator[str]:
        """What happened, as a table and sentences."""
        yield f"{'what happened':28} {'times':>5} {'median s':>9} {'worst s':>9}  until the API answered again"
        for name, seconds in sorted(self.recoveries.items()):
            yield f"{name:28} {len(seconds):5} {statistics.median(seconds):9.1f} {max(seconds):9.1f}"
        for probe in self.probes:
            failed, total = probe.failures()
            yield f"probe {probe.name}: {failed} of {total} looks failed"
        yield f"requests of users: {dict(self.seen.requests.most_common())}"
        yield (
            f"acknowledged: {len(self.seen.datasets)} datasets, {len(self.seen.deleted)} deletions, "
            f"{len(self.seen.jobs)} jobs"
        )
        yield f"faults: {len(self.faults)}"
        yield from self.faults


def run_chaos(
    url: str,
    root_pid: int,
    base_model: str,
    *,
    seconds: float,
    seed: int,
    kinds: Sequence[str],
    share_suspended: float = 0.2,
    with_users: bool = True,
) -> Outcome:
    """Do things to a service's processes for a time, then leave it alone and compare.

    Args:
        url: The service's.
        root_pid: The process under which all of its others are.
        base_model: What users fine-tune.
        seconds: How long.
        seed: Of all choices.
        kinds: Kinds of processes that may be touched.
        share_suspended: Of faults that suspend a process, rather than kill it.
        with_users: False leaves it at probes.
    """
    outcome = Outcome(probes=api_probes(url))
    people = users(url, base_model, outcome.seen, seed) if with_users else []
    with _in_threads([*outcome.probes, *people]):
        _inflict_for(seconds, root_pid, kinds, share_suspended, random.Random(seed), outcome)
    outcome.faults = faults_found(url, outcome.seen, longest_s=LONGEST_END_S + seconds)
    return outcome


@contextmanager
def _in_threads(workers: Sequence[Worker]) -> Iterator[None]:
    is_over = threading.Event()
    with ThreadPoolExecutor(max(1, len(workers))) as pool:
        running = [pool.submit(worker.run, is_over) for worker in workers]
        try:
            yield
        finally:
            is_over.set()
    for each in running:
        each.result()


def _inflict_for(
    seconds: float, root_pid: int, kinds: Sequence[str], share_suspended: float, chance: random.Random, outcome: Outcome
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(*PAUSE_S))
        fault = inflict(root_pid, kinds, chance, share_suspended)
        if fault is not None:
            took_s = _wait_for_recovery(outcome.probes, fault)
            outcome.recoveries.setdefault(fault.name, []).append(took_s)


def _wait_for_recovery(probes: Sequence[Probe], fault: Fault) -> float:
    time.sleep(NOTICED_S)
    deadline = fault.at_s + LONGEST_RECOVERY_S
    while not all(probe.has_answered_for(STEADY_S) for probe in probes) and time.monotonic() < deadline:
        time.sleep(0.2)
    found = [probe.recovery_s(fault.at_s, time.monotonic()) for probe in probes]
    return max((float("inf") if each is None else each for each in found), default=0.0)
