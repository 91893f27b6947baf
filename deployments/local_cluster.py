"""A Ray cluster of one node that ends with the program that started it.

`ray.init` would start one too, but lets nobody choose the port of the agent through which jobs are submitted, so that a
second cluster on the same machine could run no jobs.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import subprocess  # nosec B404 # no shell, and no words of users
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from deployments.flow_control import PROXY_ENVIRONMENT

HOST = "127.0.0.1"
DASHBOARD_PORT = 8265
# What `ray start` prints once the node is up.
_UP = "Ray runtime started."
# What it prints when the node wasn't up in time.
TOO_SLOW = "timed out during startup"
_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 30.0
# How often Ray looks at a node, its logs and its own event loops. Training waits for each of these looks where CPUs are
# few, and one node of one user needs less of them than a cluster; none of these is an answer that somebody waits for.
_QUIET = {
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "RAY_DASHBOARD_AGENT_LOOP_MONITOR_INTERVAL_S": "5",
    "RAY_event_stats": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "15000",
    "METRICS_RECORD_INTERVAL_S": "60",
    "SCAN_EVENT_DIR_INTERVAL_SECONDS": "15",
}
# Ray's processes inherit these.
_ENVIRONMENT = {
    **PROXY_ENVIRONMENT,
    # `ray start` switches this on by itself; a process that joins has to be told.
    "RAY_AUTH_MODE": "token",
    # Makes 127.0.0.1 the node's address, as on macOS and Windows, so that Ray's processes listen there and not on all
    # interfaces. `--node-ip-address=127.0.0.1` wouldn't: Ray puts another address of the machine in its place.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Spares every worker a virtual environment of its own under `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A process that has reserved no GPU sees none: one that is left to training is no engine's.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # What a process has started ends with it, however that ends; a GPU's memory would stay taken.
    "RAY_process_group_cleanup_enabled": "1",
    # Nothing is routed to this node any more when Ray is stopped; draining it would take half a minute.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    **_QUIET,
}
# Datasets are small beside a model; Ray's default would take 30% of the machine's memory.
_OBJECT_STORE_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class LocalCluster:
    """A running cluster and its addresses."""

    address: str
    dashboard_url: str


class ClusterStartError(Exception):
    """Ray didn't start; the message has its last words."""


@contextlib.contextmanager
def local_cluster(home: Path) -> Iterator[LocalCluster]:
    """Start Ray, and stop it when the block ends.

    Args:
        home: The service's home; clusters of different homes keep out of each other's way.

    Raises:
        ClusterStartError: Ray didn't start.
    """
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    os.environ.pop("RAY_ADDRESS", None)  # another cluster's, which nothing here must join
    _make_token()
    log_path = home / "ray.log"
    with contextlib.ExitStack() as stack:
        # A port is free until Ray listens on it. Two services that start at once would choose the same one for their
        # dashboards, and jobs of the one whose dashboard then ends never start.
        with FileLock(Path(tempfile.gettempdir()) / f"sienn-start-{os.getuid()}.lock"):
            cluster = _start_patiently(home, log_path, stack)
        yield cluster


def _start_patiently(home: Path, log_path: Path, stack: contextlib.ExitStack) -> LocalCluster:
    """Start Ray, and once more where the machine was too slow for the 30 s that Ray gives a node; the stack stops it.

    Raises:
        ClusterStartError: Ray didn't start.
    """
    try:
        return _start_once(home, log_path, stack)
    except ClusterStartError as error:
        if TOO_SLOW not in str(error):
            raise
        return _start_once(home, log_path, stack)


def _start_once(home: Path, log_path: Path, stack: contextlib.ExitStack) -> LocalCluster:
    process, cluster = _start(home, log_path)
    stack.callback(_stop, process)
    _wait_until_up(process, log_path)
    return cluster


def _start(home: Path, log_path: Path) -> tuple[subprocess.Popen[bytes], LocalCluster]:
    import ray.util  # reads the environment when it is imported

    gcs_port, agent_port, runtime_env_port, metrics_port, client_port = _free_ports(5)
    dashboard_port = DASHBOARD_PORT if _is_free(DASHBOARD_PORT) else _free_ports(1)[0]
    options = {
        "port": gcs_port,
        "dashboard-host": HOST,
        "dashboard-port": dashboard_port,
        "dashboard-agent-listen-port": agent_port,
        "runtime-env-agent-port": runtime_env_port,
        "metrics-export-port": metrics_port,
        "ray-client-server-port": client_port,
        # Zero: any free port, not a range that another cluster uses as well.
        "min-worker-port": 0,
        "max-worker-port": 0,
        "object-store-memory": _OBJECT_STORE_BYTES,
        "temp-dir": temp_dir(home),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C goes to us alone, and we end Ray once everything on it has ended.
        process = subprocess.Popen(  # nosec B603 # no shell, and no words of users
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent
        )
    return process, LocalCluster(f"{ray.util.get_node_ip_address()}:{gcs_port}", f"http://{HOST}:{dashboard_port}")


def temp_dir(home: Path) -> Path:
    """Ray's files of this home. Its sockets' paths are limited to 107 bytes, so it can't be below the home itself."""
    return Path(tempfile.gettempdir()) / f"sienn-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"


def _make_token() -> None:
    """Have Ray make the token by which the cluster's processes know each other, unless the user has one.

    Raises:
        ClusterStartError: It couldn't be written.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # nosec B603 # no shell
    if result.returncode != 0:  # what it prints otherwise is the token itself, which goes nowhere
        raise ClusterStartError(f"Ray couldn't make its authentication token: {result.stderr[-2000:]}")


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, which leaves it no time to do so (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_until_up(process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while _UP not in (words := log_path.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ClusterStartError(f"Ray didn't start; the end of {log_path}:\n{words[-2000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # Its session is ours to end: it was started for this process alone.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
