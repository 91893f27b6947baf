"""Causes and logs out of what Ray says of a job that failed."""

from __future__ import annotations

import re
import signal

from sienn_ray.jobs.plain_text import log_tail, one_line

# Ray's message of a program that failed, up to its log.
_ENTRYPOINT = re.compile(
    r"entrypoint command failed with exit code (-?\d+)(?:.*?last available logs[^\n]*\n)?", re.DOTALL
)
_NODE = re.compile(r"\bnode (has |was )?(died|dead|terminated|preempted|drained)|NodeDiedError", re.IGNORECASE)
_MAX_CAUSE_CHARS = 250


def cause_and_log(message: str) -> tuple[str, str]:
    """Return the cause in a few words, and the end of the program's log, which may be empty."""
    found = _ENTRYPOINT.search(message)
    if found is None:
        return one_line(message, _MAX_CAUSE_CHARS), ""
    return f"its program {_words_of_exit(int(found[1]))}", log_tail(message[found.end() :])


def is_loss_of_node(message: str) -> bool:
    """Return whether Ray says that the program's node went away, and took the program along."""
    return _NODE.search(message) is not None


def _words_of_exit(code: int) -> str:
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with exit code {code}"
    why = ", as happens when memory runs out" if name == "SIGKILL" else ""
    return f"was killed ({name}){why}"
