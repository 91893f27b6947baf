"""Lookups of names: a few at once for each who asks, and none that waits where nobody does."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from sienn_ray.outbound.addresses import Address
from sienn_ray.outbound.resolver import SystemResolver, UnansweredLookupError, addresses_of

DEADLINE_S = 20.0
FOUND = (ipaddress.ip_address("93.184.216.34"),)


class Dns:
    """A lookup of a name ends when a test says so."""

    def __init__(self) -> None:
        self.begun: queue.Queue[str] = queue.Queue()
        self._may_end: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def look_up(self, host: str, _: int) -> tuple[Address, ...]:
        self.begun.put(host)
        assert self._event(host).wait(DEADLINE_S)
        return FOUND

    def end(self, *hosts: str) -> None:
        for host in hosts:
            self._event(host).set()

    def _event(self, host: str) -> threading.Event:
        with self._lock:
            return self._may_end.setdefault(host, threading.Event())

    def next(self, number: int = 1) -> list[str]:
        """The names that were begun, which are so many."""
        return [self.begun.get(timeout=DEADLINE_S) for _ in range(number)]


@pytest.fixture
def dns() -> Iterator[Dns]:
    dns = Dns()
    yield dns
    dns.end(*(f"{caller}-{number}" for caller in ("ada", "bob", "carl") for number in range(9)))


def begun(resolver: SystemResolver, caller: str, number: int) -> list[Future[tuple[Address, ...]]]:
    return [resolver.begin(f"{caller}-{each}", 443, caller) for each in range(number)]


def test_a_caller_whose_names_hang_keeps_nobody_else_waiting(dns: Dns) -> None:
    resolver = SystemResolver(max_lookups=4, max_per_caller=2, look_up=dns.look_up)
    of_ada = begun(resolver, "ada", 5)
    (of_bob,) = begun(resolver, "bob", 1)
    assert Counter(each.partition("-")[0] for each in dns.next(3)) == {"ada": 2, "bob": 1}
    dns.end("bob-0")
    assert of_bob.result(DEADLINE_S) == FOUND
    assert not any(each.done() for each in of_ada)
    dns.end("ada-0")
    assert dns.next() == ["ada-2"]
    dns.end(*(f"ada-{number}" for number in range(5)))
    assert [each.result(DEADLINE_S) for each in of_ada] == [FOUND] * 5


def test_a_place_goes_to_the_caller_with_the_fewest(dns: Dns) -> None:
    resolver = SystemResolver(max_lookups=2, max_per_caller=2, look_up=dns.look_up)
    begun(resolver, "ada", 4)
    dns.next(2)
    begun(resolver, "bob", 2)
    dns.end("ada-0")
    assert dns.next() == ["bob-0"]  # it came last


def test_what_nobody_waits_for_is_not_begun(dns: Dns) -> None:
    resolver = SystemResolver(max_lookups=1, max_per_caller=1, look_up=dns.look_up)
    first, second, third = begun(resolver, "ada", 3)
    assert second.cancel()
    assert not first.cancel()  # it has its thread, and keeps its place until the system says something
    assert dns.next() == ["ada-0"]
    dns.end("ada-0")
    assert dns.next() == ["ada-2"]
    assert first.result(DEADLINE_S) == FOUND
    dns.end("ada-2")
    assert third.result(DEADLINE_S) == FOUND
    assert dns.begun.empty()


def test_a_thread_that_cannot_be_started_takes_no_place(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = SystemResolver(max_lookups=1, max_per_caller=1, look_up=dns.look_up)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for lookup in begun(resolver, "ada", 3):
            with pytest.raises(UnansweredLookupError, match="can't start new thread"):
                lookup.result(DEADLINE_S)
    (found,) = begun(resolver, "ada", 1)
    dns.end("ada-0")
    assert found.result(DEADLINE_S) == FOUND


@pytest.mark.parametrize(
    ("error", "kind"),
    [(socket.gaierror(socket.EAI_NONAME, "no"), OSError), (UnicodeError("label too long"), OSError)],
)
def test_a_lookup_that_fails_gives_its_place_back(error: Exception, kind: type[OSError]) -> None:
    def fail(*_: Any) -> tuple[Address, ...]:
        raise error

    resolver = SystemResolver(max_lookups=1, max_per_caller=1, look_up=fail)
    for lookup in begun(resolver, "ada", 3):
        with pytest.raises(kind, match=str(error.args[-1])):
            lookup.result(DEADLINE_S)


def test_nobody_who_can_be_asked_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", again)
    with pytest.raises(UnansweredLookupError, match="Temporary failure in name resolution"):
        addresses_of("hooks.example.org", 443)


def test_the_system_knows_this_machine() -> None:
    assert "127.0.0.1" in map(str, SystemResolver().begin("localhost", 80, "ada").result(DEADLINE_S))


@pytest.mark.parametrize("name", ["nothing.invalid", "a" * 70, "xn--"])
def test_what_the_system_does_not_know_is_an_error_of_the_system(name: str) -> None:
    with pytest.raises(OSError, match=r"."):
        SystemResolver().begin(name, 80, "ada").result(DEADLINE_S)
