"""Addresses of names, looked up a few at once for each who asks."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from sienn_ray.outbound.addresses import Address

# A lookup that nobody waits for any more holds a thread until the system gives it up, half a minute mostly.
_MAX_LOOKUPS = 32
_MAX_PER_CALLER = 8


class UnansweredLookupError(OSError):
    """A lookup to which nobody has an answer at the moment, so that another try may succeed."""


class Resolver(Protocol):
    """Looks names up."""

    def begin(self, host: str, port: int, caller: str) -> Future[tuple[Address, ...]]:
        """Return what will have all addresses of a name, in the order in which they are to be tried.

        Who waits no longer cancels it. It ends with an `OSError` where the name has none, and with an
        `UnansweredLookupError` where nobody says.

        Args:
            host: The name.
            port: The port, which the system may have something to say about.
            caller: Who asks; of each a few are looked up at once.
        """
        ...


def addresses_of(host: str, port: int) -> tuple[Address, ...]:
    """Ask as every program of this machine does, `/etc/hosts` included.

    Raises:
        OSError: There are none.
        UnansweredLookupError: Nobody says.
        ValueError: The name can't be encoded.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise UnansweredLookupError(str(error)) from error
        raise
    return tuple(dict.fromkeys(ipaddress.ip_address(str(each[4][0])) for each in found))


@dataclass(frozen=True, eq=False)
class _Lookup:
    host: str
    port: int
    caller: str
    answer: Future[tuple[Address, ...]] = field(default_factory=Future)


class SystemResolver:
    """Looks names up on threads of its own, since nothing ends a lookup; safe to use from several threads.

    What finds no place waits for one, without a thread; places go to the callers with the fewest first.

    Args:
        max_lookups: Lookups at once.
        max_per_caller: Lookups of one caller at once, those included that nobody waits for any more.
        look_up: Gives the addresses of a name and a port.
    """

    def __init__(
        self,
        max_lookups: int = _MAX_LOOKUPS,
        max_per_caller: int = _MAX_PER_CALLER,
        look_up: Callable[[str, int], tuple[Address, ...]] = addresses_of,
    ) -> None:
        self._max_lookups = max_lookups
        self._max_per_caller = max_per_caller
        self._look_up = look_up
        self._lock = threading.Lock()
        # In the order in which they came.
        self._waiting: dict[_Lookup, None] = {}
        self._num_running: Counter[str] = Counter()

    def begin(self, host: str, port: int, caller: str) -> Future[tuple[Address, ...]]:
        """See `Resolver.begin`."""
        lookup = _Lookup(host, port, caller)
        with self._lock:
            self._waiting[lookup] = None
        lookup.answer.add_done_callback(lambda _: self._forget(lookup))
        self._begin_waiting()
        return lookup.answer

    def _forget(self, lookup: _Lookup) -> None:
        with self._lock:
            self._waiting.pop(lookup, None)

    def _begin_waiting(self) -> None:
        """Begin what waits, as far as there are places."""
        while (lookup := self._next()) is not None:
            thread = threading.Thread(target=self._run, args=(lookup,), name="name-lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there are too many threads
                self._give_back(lookup)
                lookup.answer.set_exception(UnansweredLookupError(str(error)))

    def _next(self) -> _Lookup | None:
        """Take a place for a lookup, if there is both."""
        with self._lock:
            while self._num_running.total() < self._max_lookups:
                able = (each for each in self._waiting if self._num_running[each.caller] < self._max_per_caller)
                lookup = min(able, key=lambda each: self._num_running[each.caller], default=None)
                if lookup is None:
                    return None
                del self._waiting[lookup]
                if lookup.answer.set_running_or_notify_cancel():  # nobody cancels it from now on
                    self._num_running[lookup.caller] += 1
                    return lookup
        return None

    def _give_back(self, lookup: _Lookup) -> None:
        with self._lock:
            self._num_running[lookup.caller] -= 1
            if not self._num_running[lookup.caller]:
                del self._num_running[lookup.caller]

    def _run(self, lookup: _Lookup) -> None:
        try:
            found = self._look_up(lookup.host, lookup.port)
        except Exception as error:  # also of a name that can't be encoded
            self._give_back(lookup)
            lookup.answer.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        else:
            self._give_back(lookup)
            lookup.answer.set_result(found)
        self._begin_waiting()
