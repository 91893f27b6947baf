"""Plain text out of what programs print: no terminal codes, and a bounded length."""

from __future__ import annotations

import re

MAX_MESSAGE_CHARS = 600
MAX_LOG_TAIL_CHARS = 4000
# Control sequences of terminals (ECMA-48): CSI, OSC, and the short ones.
_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def without_terminal_codes(text: str) -> str:
    """Return a text without colours and other terminal codes; a line that was written over shows its last state."""
    plain = _TERMINAL_CODES.sub("", text).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n"))


def one_line(text: str, max_chars: int = MAX_MESSAGE_CHARS) -> str:
    """Return a text on one line, cut to its first characters, for people to read."""
    words = " ".join(without_terminal_codes(text).split())
    return words if len(words) <= max_chars else words[: max_chars - 1].rstrip() + "…"


def log_tail(text: str, max_chars: int = MAX_LOG_TAIL_CHARS) -> str:
    """Return the last whole lines of a log, up to so many characters."""
    plain = without_terminal_codes(text).strip("\n")
    if len(plain) <= max_chars:
        return plain
    tail = plain[-max_chars:]
    return tail.partition("\n")[2] or tail
