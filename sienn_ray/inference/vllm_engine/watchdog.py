"""End the processes of a vLLM core whose parent has died: run as a program of its own, beside the parent.

vLLM's core outlives a parent that ends by SIGKILL or `os._exit`, and keeps the GPU's memory. A pipe from the parent is
this program's standard input: it ends when the parent does, however that comes about. All processes of the core have a
variable in the environment that they were started with, by which they are found; Linux only, as vLLM is.

Nothing but the standard library is imported: the program is started with `python -I`, and stays small.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

#: Name of the variable that marks the processes of one core.
MARK = "SIENN_VLLM_CORE"
_LOOK_S = 0.02
# A process that its device keeps from ending may take long; the parent doesn't wait for it, and this program does.
_PARENT_PATIENCE_S = 2.0
_OWN_PATIENCE_S = 300.0


def marked_processes(mark: str) -> list[int]:
    """Return the ids of all processes that were started with a mark, but for this one."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if wanted in environment.split(b"\0") and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def kill_marked(mark: str, patience_s: float = _PARENT_PATIENCE_S) -> None:
    """Kill all processes that were started with a mark, and return once they are gone, or after a while."""
    give_up_at = time.monotonic() + patience_s
    while (processes := marked_processes(mark)) and time.monotonic() < give_up_at:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1], _OWN_PATIENCE_S)
