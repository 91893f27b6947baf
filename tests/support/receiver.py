"""A receiver of requests on loopback, which answers as a test says."""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sienn_ray.outbound.addresses import Address

DEADLINE_S = 20.0


@dataclass(frozen=True)
class Received:
    """A request as it has come."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Takes posts, and answers each with the next status, and the last of them from then on.

    Attributes:
        statuses: What is answered.
        headers: Sent with each answer.
        body: Sent with each answer.
        act: Does something else with a connection in place of an answer.
    """

    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thank you"
    act: Callable[[BaseHTTPRequestHandler], None] | None = None
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    arrivals: queue.Queue[Received] = field(default_factory=queue.Queue)
    # Set when the test ends, for what hangs meanwhile.
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    def next(self) -> Received:
        """Wait for a request."""
        return self.arrivals.get(timeout=DEADLINE_S)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Take a request."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        received = Received(handler.path, {name.lower(): value for name, value in handler.headers.items()}, body)
        self.requests.append(received)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        try:
            if self.act is not None:
                self.act(handler)
                return
            handler.send_response(status)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(self.body)))
            handler.end_headers()
            handler.wfile.write(self.body)
        except OSError:  # the client reads no more
            handler.close_connection = True
        finally:
            self.arrivals.put(received)


@contextmanager
def receiving(ssl_context: ssl.SSLContext | None = None, **options: Any) -> Iterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver(**options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.answer(self)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    if ssl_context is not None:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class FakeResolver:
    """Names that mean what a test says: of several answers each in its turn, and the last of them from then on."""

    def __init__(self, **names: list[list[str]] | None) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    def begin(self, host: str, port: int, caller: str) -> Future[tuple[Address, ...]]:
        """See `Resolver.begin`."""
        assert port
        assert caller
        answer: Future[tuple[Address, ...]] = Future()
        try:
            answer.set_result(self._addresses(host))
        except OSError as error:
            answer.set_exception(error)
        return answer

    def _addresses(self, host: str) -> tuple[Address, ...]:
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return tuple(map(ipaddress.ip_address, answer))
