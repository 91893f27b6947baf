"""The processes of one vLLM core, none of which is left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess  # nosec B404 # our own program, with arguments of our own
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping

from sienn_ray.inference.vllm_engine import watchdog

# The environment is the process's, so one core starts at a time.
_starting = threading.Lock()


class CoreProcesses:
    """Marks the processes that a core starts; a watchdog ends them once this process has ended, however it did."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._closing = threading.Lock()
        # In a session of its own: who kills this process's group must not end the watchdog with it.
        self._watchdog = subprocess.Popen(  # nosec B603 # no shell, no input of a user
            [sys.executable, "-I", watchdog.__file__, self._mark], stdin=subprocess.PIPE, start_new_session=True
        )

    @contextlib.contextmanager
    def environment(self, variables: Mapping[str, str]) -> Iterator[None]:
        """Have processes that are started inside get variables, and the mark."""
        with _starting:
            changed = {**variables, watchdog.MARK: self._mark}
            before = {name: os.environ.get(name) for name in changed}
            os.environ.update(changed)
            try:
                yield
            finally:
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value

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
