"""Runs the command, and serves an application on a free port for it."""

from __future__ import annotations

import threading
import time

import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from sienn_ray import cli

DEADLINE_S = 20


class serving:  # noqa: N801  (a context manager)
    """An application on a free port of this machine."""

    def __init__(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        deadline = time.monotonic() + DEADLINE_S
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words))


def done(*words: str) -> str:
    """What a command prints that ends well."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str) -> str:
    """The one sentence of a command that ends badly."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")
