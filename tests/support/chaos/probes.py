"""Requests that are sent all the time, and how long they went unanswered after a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx2

INTERVAL_S = 0.2
TIMEOUT_S = 5.0


@dataclass
class Probe:
    """One request, again and again in a thread of its own.

    Args:
        name: What it shows.
        send: Sends it; raises unless it was answered well.
    """

    name: str
    send: Callable[[], None]
    _looks: list[tuple[float, float, bool]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, is_over: threading.Event) -> None:
        while not is_over.wait(INTERVAL_S):
            began_s = time.monotonic()
            try:
                self.send()
            except (httpx2.HTTPError, RuntimeError):
                answered = False
            else:
                answered = True
            with self._lock:
                self._looks.append((began_s, time.monotonic(), answered))

    def recovery_s(self, since_s: float, until_s: float) -> float | None:
        """Seconds from a fault to the first answer after the last failure; 0 if none failed, None if it still fails."""
        with self._lock:
            looks = [look for look in self._looks if since_s <= look[1] and look[0] < until_s]
        failed = [number for number, look in enumerate(looks) if not look[2]]
        if not failed:
            return 0.0
        if failed[-1] + 1 == len(looks):
            return None
        return looks[failed[-1] + 1][1] - since_s

    def failures(self) -> tuple[int, int]:
        """How many looks failed, and how many there were."""
        with self._lock:
            return sum(not answered for *_, answered in self._looks), len(self._looks)

    def has_answered_for(self, seconds: float) -> bool:
        """Whether every look of the last seconds was answered, and there was one."""
        since_s = time.monotonic() - seconds
        with self._lock:
            recent = [answered for began_s, _, answered in self._looks if began_s >= since_s]
        return bool(recent) and all(recent)


def api_probes(url: str) -> list[Probe]:
    """Probes of the HTTP path alone, and of the tracker and database behind it."""
    paths: Mapping[str, str] = {"/health": "/health", "/api/jobs": "/api/jobs?limit=1"}

    def getter(path: str) -> Callable[[], None]:
        def get() -> None:
            # A new connection each time, as new clients have.
            httpx2.get(url + path, timeout=TIMEOUT_S).raise_for_status()

        return get

    return [Probe(name, getter(path)) for name, path in paths.items()]
