"""The service on this machine alone: a Ray cluster of its own, in the foreground until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from deployments.local_cluster import ClusterStartError, LocalCluster, local_cluster
from sienn_ray.settings import Settings, fault_words

logger = logging.getLogger("sienn_ray.serve")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    try:
        settings = _settings(argv)
    except ValidationError as error:
        sys.stderr.write(f"error: {fault_words(error)}; correct it in the environment\n")
        return 2
    if reason := settings.access_fault(settings.host) or _port_trouble(settings.host, settings.port):
        sys.stderr.write(f"error: {reason}\n")
        return 2
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a start that is under way as Ctrl-C does
    sys.stdout.write("Starting Ray and the service; this takes about 20 seconds.\n")
    sys.stdout.flush()
    try:
        with running(settings) as cluster:
            stop = threading.Event()
            # Not before: joining a cluster makes Ray install handlers of its own.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            _say_where(settings, cluster)
            stop.wait()
            sys.stdout.write("\nStopping; running fine-tunes resume from their last checkpoint at the next start.\n")
            sys.stdout.flush()
    except ClusterStartError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _settings(argv: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="sienn serve", description="Serve on this machine.")
    parser.add_argument("--host", help="address to listen on (SIENN_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (SIENN_PORT)")
    parser.add_argument("--home", type=Path, help="folder for everything that is kept (SIENN_HOME)")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    return Settings(**given)


def _port_trouble(host: str, port: int) -> str | None:
    """Why nothing can listen there, or None. Ray Serve itself would say so only in its proxy's log."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"can't listen on {host}:{port} ({error.strerror}); set SIENN_PORT to a free port"
    return None


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[LocalCluster]:
    """Run the service over a Ray cluster of its own; yields the cluster's addresses."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as after_the_cluster, local_cluster(settings.home) as cluster:
        import ray
        from ray import serve

        from deployments.app import application_of
        from sienn_ray.jobs.client.tracker_handle import NAMESPACE

        ray.init(cluster.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
        try:
            serve.start(http_options={"host": settings.host, "port": settings.port})
            serve.run(application_of(settings.for_this_machine()), name="sienn", route_prefix="/")
            yield cluster
        finally:
            # A second Ctrl-C would leave Ray's processes behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            # Ray's native code writes of each lost connection, straight to the process's stderr, and its Python of each
            # failed call of an actor that ends, to stdout.
            after_the_cluster.enter_context(output_into(settings.home / "ray-shutdown.log"))
            serve.shutdown()
            ray.shutdown()


@contextlib.contextmanager
def output_into(path: Path) -> Iterator[None]:
    """Redirect all that this process writes to stdout and stderr, native code included, into a file of its own."""
    streams = {1: sys.stdout, 2: sys.stderr}
    for stream in streams.values():
        stream.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in streams}
    try:
        with path.open("wb") as file:
            for descriptor in streams:
                os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for descriptor, stream in streams.items():
            stream.flush()
            os.dup2(saved[descriptor], descriptor)
            os.close(saved[descriptor])


def _say_where(settings: Settings, cluster: LocalCluster) -> None:
    from deployments.access import make_first_admin_key

    key_path = make_first_admin_key(settings)
    key_words = f"  Admin key  {key_path}  (yours alone; delete the file once you have read it)\n" if key_path else ""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # nosec B104 # not bound to
    url = f"http://{host}:{settings.port}"
    sys.stdout.write(
        f"\nsienn_ray is ready.\n"
        f"  API        {url}\n"
        f"  Docs       {url}/docs\n"
        f"  Ray        {cluster.address}\n"
        f"  Dashboard  {cluster.dashboard_url}  (`ray get-auth-token` prints the token it asks for)\n"
        f"  Data       {settings.home}\n"
        f"{key_words}"
        f"Ctrl-C stops it.\n\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
