"""A PostgreSQL server of the tests' own, in a folder that goes with it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

# Names a server to use instead, by a user that may create databases.
URL_VARIABLE = "SIENN_TEST_POSTGRES_URL"
_USER = "postgres"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
# Nothing has to outlive a crash of the machine, and no two servers can want the same port: there is none.
_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
}


class PostgresMissingError(Exception):
    """There is no server to start; the message says what to do."""


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs.

    Args:
        url: SQLAlchemy URL of a database in which others can be made.
    """

    url: str

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A database for as long as the block; gives its URL."""
        name = f"sienn_{uuid.uuid4().hex}"
        server = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            yield sa.make_url(self.url).set(database=name).render_as_string(hide_password=False)
        finally:
            with server.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
            server.dispose()


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """The server that `SIENN_TEST_POSTGRES_URL` names, or else one that is started here and ended with the block.

    Raises:
        PostgresMissingError: There is neither.
    """
    if url := os.environ.get(URL_VARIABLE):
        yield PostgresServer(url)
        return
    programs = _programs()
    # Not below pytest's folder, which the server's own user can't enter, and short: a socket's path has a limit.
    folder = Path(tempfile.mkdtemp(prefix="sienn-postgres-"))
    try:
        with _running(programs, folder):
            yield PostgresServer(f"postgresql+psycopg://{_USER}@/postgres?host={folder}")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    """Folder of the newest server's programs; Debian puts them beside the path."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda path: int(path.parent.parent.name) if path.parent.parent.name.isdigit() else 0)
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise PostgresMissingError(
        "PostgreSQL's server isn't installed; `make postgres` does it on Debian and Ubuntu (as root), or set "
        f"{URL_VARIABLE} to the SQLAlchemy URL of a server on which databases may be created"
    )


@contextlib.contextmanager
def _running(programs: Path, folder: Path) -> Iterator[None]:
    data, log_path = folder / "data", folder / "log"
    user = _unprivileged_user(folder)
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        user=user,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    options = {**_OPTIONS, "unix_socket_directories": str(folder)}
    command = [str(programs / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    with log_path.open("wb") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(server, programs, folder, log_path)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # ends connections and doesn't wait for them
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _unprivileged_user(folder: Path) -> int | None:
    """Id of a user that owns the folder, since the server refuses to run as root; None for the one that runs this."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam(_USER if _USER in names else "nobody")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return entry.pw_uid


def _wait_until_ready(server: subprocess.Popen[bytes], programs: Path, folder: Path, log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode != 0:
        is_over = server.poll() is not None or time.monotonic() > deadline
        assert not is_over, f"PostgreSQL didn't start:\n{log_path.read_text(errors='replace')}"
        time.sleep(0.05)
