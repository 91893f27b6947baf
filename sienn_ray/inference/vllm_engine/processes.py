"""The processes of one vLLM core, none of which is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess  # nosec B404 # our own program, with arguments of our own
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping

from sienn_ray.inference.vllm_engine import watchdog
from sienn_ray.settings import Settings

# Ends of names of variables with secrets: tokens of hubs, keys of clouds, passwords of databases. Narrower than what
# logs hide, since vLLM has variables that speak of tokens.
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|CREDENTIALS?|KEY|KEY_ID|DATABASE_URL|CONNECTION_STRING)$")

# The environment is the process's, so one core starts at a time.
_starting = threading.Lock()


class CoreProcesses:
    """Marks the processes that a core starts; a watchdog ends them once this process has ended, however it did."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._closing = threading.Lock()
        # In a session of its own: who kills this process's group must not end the watchdog with it.
        self._watchdog = subprocess.Popen(  # nosec B603 # no shell, no input of a user
            [sys.executable, "-I", watchdog.__file__, self._mark],
            stdin=subprocess.PIPE,
            env=_without_secrets(os.environ),
            start_new_session=True,
        )

    @contextlib.contextmanager
    def environment(self, variables: Mapping[str, str]) -> Iterator[None]:
        """Have processes that are started inside get variables, and the mark, but none of this process's secrets."""
        with _starting:
            changed = {**variables, watchdog.MARK: self._mark}
            secrets = os.environ.keys() - _without_secrets(os.environ).keys()
            before = {name: value for name, value in os.environ.items() if name in changed or name in secrets}
            for name in secrets:
                del os.environ[name]
            os.environ.update(changed)
            try:
                yield
            finally:
                for name in changed:
                    os.environ.pop(name, None)
                os.environ.update(before)

    @property
    def ids(self) -> list[int]:
        """Ids of the processes that run, the watchdog aside."""
        return watchdog.marked_processes(self._mark)

    def kill(self) -> None:
        """End all of them at once; safe at any time and from any thread."""
        watchdog.kill_marked(self._mark)

    def close(self) -> None:
        """End all of them, and the watchdog; a repeat changes nothing."""
        with self._closing:
            self.kill()
            if self._watchdog.stdin is not None and not self._watchdog.stdin.closed:
                self._watchdog.stdin.close()
                self._watchdog.wait()


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    secrets = {Settings.variable(name) for name in Settings.secret_names()}
    return {name: value for name, value in environment.items() if name not in secrets and not _SECRET_NAME.search(name)}
