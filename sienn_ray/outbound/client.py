"""Requests to servers that users name, each to an address that was checked.

A name is looked up once; all of its addresses are checked, and one of these is connected, so that a name which means
something else a moment later leads nowhere else. No redirect is followed, no proxy of the environment is asked, nothing
is decompressed, and neither a slow server nor an endless answer holds a request longer than its time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpcore2

from sienn_ray import __version__
from sienn_ray.errors import DestinationError, OutOfReachError, first_line
from sienn_ray.outbound.addresses import Address, without_mapping
from sienn_ray.outbound.resolver import Resolver, SystemResolver, UnansweredLookupError
from sienn_ray.outbound.rules import OutboundRules
from sienn_ray.outbound.urls import OutboundUrl, parsed

# Of one address; a name may have several.
_CONNECT_TIMEOUT_S = 5.0
_RETRY_AFTER_S = 30


@dataclass(frozen=True)
class OutboundResponse:
    """An answer.

    Args:
        status: The HTTP status, whatever it is.
        headers: By their names in small letters; of several of one name the first.
        body: The first bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class OutboundClient:
    """Sends requests; safe to use from several threads.

    Args:
        rules: Their limits.
        resolver: Looks names up.
        ssl_context: Certificates that are trusted; by default those of the system.
    """

    def __init__(
        self, rules: OutboundRules, resolver: Resolver | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._rules = rules
        self._resolver = resolver or SystemResolver()
        self._given_context = ssl_context

    async def checked(self, text: str, caller: str) -> OutboundUrl:
        """Return the parts of a URL to which a request may go, as far as that is known now; holds no thread.

        Args:
            text: The URL.
            caller: Who asks.

        Raises:
            DestinationError: None may go there.
            OutOfReachError: Nobody said in time what its host means.
        """
        url = parsed(text, allows_http=self._rules.allows_http)
        try:
            if url.address is not None:
                self._admitted(url, (url.address,))
            else:
                lookup = asyncio.wrap_future(self._resolver.begin(url.host, url.port, caller))
                self._admitted(url, await asyncio.wait_for(lookup, self._rules.timeout_s))
        except (TimeoutError, UnansweredLookupError):
            words = f"nobody could say within {self._rules.timeout_s:g} s what {url.host} means; try again in a while"
            raise OutOfReachError(words, _RETRY_AFTER_S) from None
        except OSError:
            # The same words whether a name means nothing or something within: nobody is to learn which names there are.
            raise self._refusal(url) from None
        return url

    def post(self, text: str, body: bytes, headers: Mapping[str, str], caller: str) -> OutboundResponse:
        """Post a body, and return the answer's beginning.

        Args:
            text: The URL.
            body: What is sent.
            headers: Headers beside those that every request has.
            caller: Who has named the URL.

        Raises:
            DestinationError: No request may go there.
            OutOfReachError: There was no answer in time.
        """
        url = parsed(text, allows_http=self._rules.allows_http)
        deadline = _Deadline(self._rules.timeout_s)
        try:
            return self._post(url, body, headers, self._addresses(url, caller, deadline), deadline)
        except (httpcore2.ProtocolError, httpcore2.NetworkError, OSError) as error:
            if deadline.is_over or isinstance(error, TimeoutError):
                words = f"no answer from {url.authority} within {self._rules.timeout_s:g} s"
            else:
                words = f"no answer from {url.authority} ({type(error).__name__}: {first_line(error)})"
            raise OutOfReachError(words, _RETRY_AFTER_S) from error

    def _post(
        self,
        url: OutboundUrl,
        body: bytes,
        headers: Mapping[str, str],
        addresses: tuple[Address, ...],
        deadline: _Deadline,
    ) -> OutboundResponse:
        backend = _CheckedAddresses(addresses, deadline)
        sent: dict[bytes | str, bytes | str] = {
            "Host": url.authority,
            "User-Agent": f"sienn_ray/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "Content-Length": str(len(body)),
        }
        sent.update(headers.items())
        where = httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        # A pool of one request's own: a connection that is kept would go on to an address that was checked long ago.
        with (
            httpcore2.ConnectionPool(ssl_context=self._ssl_context, network_backend=backend) as pool,
            pool.stream("POST", where, headers=sent, content=body) as response,
        ):
            return OutboundResponse(response.status, _headers(response), self._beginning(response))

    def _beginning(self, response: httpcore2.Response) -> bytes:
        """The first bytes of an answer; what breaks off after its status is an answer all the same."""
        read = bytearray()
        try:
            for piece in response.iter_stream():
                read += piece
                if len(read) >= self._rules.max_response_bytes:
                    break
        except (httpcore2.ProtocolError, httpcore2.NetworkError, OSError):
            pass
        return bytes(read[: self._rules.max_response_bytes])

    def _addresses(self, url: OutboundUrl, caller: str, deadline: _Deadline) -> tuple[Address, ...]:
        """The addresses of a URL's host, each of which may be connected.

        Raises:
            DestinationError: One of them mustn't be.
            OSError: There are none, or nobody says in time.
        """
        if url.address is not None:
            return self._admitted(url, (url.address,))
        lookup = self._resolver.begin(url.host, url.port, caller)
        try:
            return self._admitted(url, lookup.result(deadline.left_s()))
        finally:
            lookup.cancel()  # it may wait for its turn

    def _admitted(self, url: OutboundUrl, found: tuple[Address, ...]) -> tuple[Address, ...]:
        if not found or any(self._rules.addresses.fault_of(address) for address in found):
            raise self._refusal(url)
        return tuple(map(without_mapping, found))

    def _refusal(self, url: OutboundUrl) -> DestinationError:
        way_out = f"; {self._rules.setting} names networks that are allowed all the same" if self._rules.setting else ""
        if url.address is not None and (kind := self._rules.addresses.fault_of(url.address)):
            return DestinationError(f"{url.host} is no public address ({kind}){way_out}")
        return DestinationError(f"{url.host} has no address, or one that isn't public{way_out}")

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        return self._given_context or httpcore2.default_ssl_context()


def _headers(response: httpcore2.Response) -> dict[str, str]:
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]
    return dict(reversed(pairs))


class _Deadline:
    """The end of a request's time.

    Args:
        timeout_s: Seconds from now.
    """

    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s

    @property
    def is_over(self) -> bool:
        """Return whether no time is left."""
        return time.monotonic() >= self._at

    def left_s(self, longest_s: float | None = None) -> float:
        """Return the seconds that are left, or so many at the most.

        Raises:
            TimeoutError: None are.
        """
        left_s = self._at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the time for the request is over")
        return left_s if longest_s is None else min(left_s, longest_s)


class _CheckedAddresses(httpcore2.NetworkBackend):
    """Connects addresses that were checked, whatever name a request has; the name goes into TLS and the request.

    Args:
        addresses: The addresses, tried one after the other.
        deadline: Of the whole request.
    """

    def __init__(self, addresses: tuple[Address, ...], deadline: _Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002  (a name; it isn't looked up again)
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        """Connect the first address that answers."""
        last: OSError | None = None
        for address in self._addresses:
            try:
                where = (str(address), port)
                connected = socket.create_connection(where, self._deadline.left_s(_CONNECT_TIMEOUT_S))
            except OSError as error:
                last = error
            else:
                return _Connection(connected, self._deadline)
        raise last or OSError("there is no address")


class _Connection(httpcore2.NetworkStream):
    """A connection all of whose reads and writes end with the request's time.

    Args:
        connected: The socket.
        deadline: Of the whole request.
    """

    def __init__(self, connected: socket.socket, deadline: _Deadline) -> None:
        self._socket = connected
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Return what has come."""
        self._socket.settimeout(self._deadline.left_s())
        return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send all of it."""
        left = memoryview(buffer)
        while left:
            self._socket.settimeout(self._deadline.left_s())
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                raise
            except OSError as error:  # a server that has answered before it has read all is listened to
                raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        """Begin to encrypt; the server has to be who the request's name says."""
        # Of a handshake, this is the time for all of it.
        self._socket.settimeout(self._deadline.left_s())
        try:
            return _Connection(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._deadline)
        except BaseException:
            self._socket.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks of a connection."""
        is_asked = info == "socket" or (info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket))
        return self._socket if is_asked else None
