"""Addresses of names."""

from __future__ import annotations

import ipaddress
import socket
import threading
from concurrent.futures import Future
from typing import Protocol

from sienn_ray.outbound.addresses import Address

# A lookup that nobody waits for any more holds a thread until the system gives it up, half a minute mostly.
_MAX_LOOKUPS = 32


class Resolver(Protocol):
    """Looks names up."""

    def resolve(self, host: str, port: int, timeout_s: float) -> tuple[Address, ...]:
        """Return all addresses of a name, in the order in which they are to be tried.

        Raises:
            OSError: There are none, or nobody says within the time.
        """
        ...


class SystemResolver:
    """Asks as every program of this machine does, `/etc/hosts` included."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(_MAX_LOOKUPS)

    def resolve(self, host: str, port: int, timeout_s: float) -> tuple[Address, ...]:
        """See `Resolver.resolve`."""
        if not self._places.acquire(timeout=timeout_s):
            raise TimeoutError("too many names are being looked up")
        answer: Future[tuple[Address, ...]] = Future()
        # Its own thread, since nothing ends a lookup.
        threading.Thread(target=self._look_up, args=(host, port, answer), name="name-lookup", daemon=True).start()
        try:
            return answer.result(timeout_s)
        except TimeoutError:
            raise TimeoutError(f"no answer to a lookup within {timeout_s:g} s") from None

    def _look_up(self, host: str, port: int, answer: Future[tuple[Address, ...]]) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            addresses = [ipaddress.ip_address(str(each[4][0])) for each in found]
            answer.set_result(tuple(dict.fromkeys(addresses)))
        except Exception as error:  # also of a name that can't be encoded
            answer.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        finally:
            self._places.release()
