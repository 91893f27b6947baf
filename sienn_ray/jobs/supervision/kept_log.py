"""A log as it is kept: bounded in size, with its head and its tail, and without secrets."""

from __future__ import annotations

import functools
import os
import re
from collections import deque
from collections.abc import Mapping

_HIDDEN = b"[hidden]"
# A user and a password in a URL, and tokens by which hubs and clouds know their own.
_CREDENTIALS = (
    (re.compile(rb"(://)[^/\s:@]*:[^/\s@]+@"), rb"\1" + _HIDDEN + b"@"),
    (re.compile(rb"\bhf_[A-Za-z0-9]{16,}"), _HIDDEN),
    (re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), _HIDDEN),
)
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|CREDENTIAL|(API|ACCESS|PRIVATE|ADMIN)_?KEY|DATABASE_URL", re.IGNORECASE
)
_MIN_SECRET_CHARS = 8


class KeptLog:
    """Takes a log of any length in chunks, in bounded memory.

    Args:
        max_bytes: Bytes that are kept of it, half of them from its beginning and half from its end.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_head_bytes = max_bytes // 2
        self._max_tail_bytes = max_bytes - self._max_head_bytes
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._num_line_ends = 0
        self.num_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self.num_bytes += len(chunk)
        self._num_line_ends += chunk.count(b"\n")
        room = self._max_head_bytes - len(self._head)
        self._head += chunk[:room]
        rest = chunk[room:]
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        while self._tail and self._tail_bytes - len(self._tail[0]) >= self._max_tail_bytes:
            self._tail_bytes -= len(self._tail.popleft())

    def content(self) -> bytes:
        """The whole log, or whole lines of its head and tail with a line between them that says what was left out."""
        head, tail = bytes(self._head), b"".join(self._tail)
        if len(head) + len(tail) == self.num_bytes and len(tail) <= self._max_tail_bytes:
            return head + tail
        head = head[: head.rfind(b"\n") + 1] or head
        tail = tail[-self._max_tail_bytes :]
        tail = tail[tail.find(b"\n") + 1 :]
        left_out = self.num_bytes - len(head) - len(tail)
        num_lines = self._num_line_ends - head.count(b"\n") - tail.count(b"\n")
        words = (
            f"[{left_out} bytes in {num_lines} lines of the log are left out here; SIENN_ATTEMPT_LOG_MAX_BYTES says "
            "how many are kept]\n"
        )
        return head + (b"" if head.endswith(b"\n") else b"\n") + words.encode() + tail


def without_secrets(content: bytes, environment: Mapping[str, str] | None = None) -> bytes:
    """Hide credentials in a log, and what variables of this process hold whose names speak of secrets.

    Args:
        content: The log.
        environment: The variables; this process's by default.
    """
    values = _own_values() if environment is None else _pattern_of(environment)
    if values is not None:
        content = values.sub(_HIDDEN, content)
    for pattern, hidden in _CREDENTIALS:
        content = pattern.sub(hidden, content)
    return content


@functools.cache
def _own_values() -> re.Pattern[bytes] | None:
    """The pattern of this process's variables, as they were when the first log was read."""
    return _pattern_of(os.environ)


def _pattern_of(environment: Mapping[str, str]) -> re.Pattern[bytes] | None:
    secrets = {
        line
        for name, value in environment.items()
        if len(value) >= _MIN_SECRET_CHARS and _SECRET_NAME.search(name)
        # A log has them line by line.
        for line in value.encode(errors="surrogateescape").splitlines()
        if len(line) >= _MIN_SECRET_CHARS
    }
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile(b"|".join(map(re.escape, longest_first))) if longest_first else None
