"""Checks of ports: whether the service can listen, or who does."""

from __future__ import annotations

import socket

import httpx2
import psutil

from sienn_ray.cli.doctor.findings import Finding, fail, ok, warn
from sienn_ray.settings import Settings

# Ray's dashboard; where it is taken, Ray takes another.
DASHBOARD_PORT = 8265
_ANSWER_TIMEOUT_S = 2.0


def check_port(settings: Settings) -> Finding:
    """The port that the service listens on."""
    host, port = settings.host, settings.port
    reason = _trouble(host, port)
    if reason is None:
        return ok(f"{host}:{port} is free; no service runs there")
    if _is_served(host, port):
        return ok(f"{host}:{port} is this service's, which answers")
    return fail(
        f"{host}:{port} can't be listened on ({reason}){_owner(port)}",
        "end that program, or set SIENN_PORT to a free port",
    )


def check_dashboard_port() -> Finding:
    """The port of Ray's dashboard."""
    if _trouble("127.0.0.1", DASHBOARD_PORT) is None:
        return ok(f"127.0.0.1:{DASHBOARD_PORT} is free for Ray's dashboard")
    return warn(
        f"127.0.0.1:{DASHBOARD_PORT} is taken{_owner(DASHBOARD_PORT)}",
        "Ray's dashboard of a service that starts now gets another port, which `sienn serve` prints",
    )


def _trouble(host: str, port: int) -> str | None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _is_served(host: str, port: int) -> bool:
    address = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # nosec B104 # compared with, not bound to
    try:
        answer = httpx2.get(f"http://{address}:{port}/health", timeout=_ANSWER_TIMEOUT_S)
        return bool(answer.json()["status"] == "ok")
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return False


def _owner(port: int) -> str:
    """Who listens, where this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid and connection.status == "LISTEN":
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""
