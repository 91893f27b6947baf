"""Only this machine reaches what the service's processes listen on, but for what is written down here."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from tests.integration.service import Service

# Processes that may listen on other than loopback addresses, by their titles, and why. docs/operations.md names them.
ALLOWED = {
    # Serve binds its replicas' server for requests of other deployments to `[::]`, whatever the node's address is; it
    # answers nobody without Ray's token.
    r"ray::ServeReplica:.*": "internal gRPC server",
}


@dataclass(frozen=True)
class Listener:
    """A socket that takes connections or datagrams."""

    title: str
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        ip = ipaddress.ip_address(self.address)
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback


def listeners(service: Service) -> Iterator[Listener]:
    """All sockets of the service's processes, Ray's among them."""
    root = psutil.Process(service.process.pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            for each in process.net_connections("inet"):
                is_open = each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and not each.raddr)
                if is_open:
                    yield Listener(title[:200], each.laddr.ip, each.laddr.port)


def is_allowed(listener: Listener) -> bool:
    return any(re.fullmatch(title, listener.title) for title in ALLOWED)


def test_nothing_else_listens_to_other_machines(service: Service, completed_job: str) -> None:
    """Also once a fine-tune and an engine have run, whose processes listen as well."""
    service.post("/api/test-model", json={"job_id": completed_job, "prompt": "x", "max_new_tokens": 10})
    found = list(listeners(service))
    assert len(found) > 10  # or nothing could be seen
    assert any(listener.title.startswith("ray::ServeReplica:engine") for listener in found)
    open_ones = [listener for listener in found if not listener.is_loopback]
    assert [listener for listener in open_ones if not is_allowed(listener)] == []


def test_what_is_written_down_is_still_so(service: Service) -> None:
    """Once Ray binds it as the others, the list and the docs are to say so."""
    open_ones = [listener for listener in listeners(service) if not listener.is_loopback]
    assert [title for title in ALLOWED if not any(re.fullmatch(title, each.title) for each in open_ones)] == []


def test_what_is_not_on_the_list_is_found() -> None:
    for address, is_loopback in (("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("::1", True), ("::", False)):
        assert Listener("ray::X", address, 1).is_loopback is is_loopback
    assert not Listener("ray::X", "0.0.0.0", 1).is_loopback
    assert not is_allowed(Listener("ray::ServeController", "::", 1))
