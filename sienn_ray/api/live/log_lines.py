"""Numbered lines of a job's log, from the first line of each attempt on, so that a listener can come back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from sienn_ray.api.deps import Backends
from sienn_ray.api.lists.attempt_logs import whole_log_of
from sienn_ray.errors import NotFoundError
from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.supervision.kept_log import without_secrets

# In one update.
MAX_LINES = 200
_SLICE_BYTES = 64 * 1024
# Of one line; some programs never end theirs.
MAX_LINE_BYTES = 8192
# What `KeptLog` puts in the place of what it leaves out.
_LEFT_OUT = re.compile(r"\[\d+ bytes in (\d+) lines of the log are left out here; ")


@dataclass(frozen=True, order=True)
class LinePlace:
    """The place behind a line of a job's log.

    Args:
        attempt: The attempt, from 1 on; 0 is before all of them.
        line: The line's number within it, from 1 on; 0 is before the first one.
    """

    attempt: int = 0
    line: int = 0


@dataclass(frozen=True)
class LogLines:
    """Consecutive lines.

    Args:
        attempt: The attempt.
        first: Number of the first one.
        texts: The lines without their ends.
    """

    attempt: int
    first: int
    texts: tuple[str, ...]

    @property
    def end(self) -> LinePlace:
        """The place behind the last one."""
        return LinePlace(self.attempt, self.first + len(self.texts) - 1)

    def behind(self, place: LinePlace) -> LogLines | None:
        """Return those that come behind a place; None where none do."""
        if place < LinePlace(self.attempt, self.first):
            return self
        if place >= self.end:
            return None
        num_told = place.line - self.first + 1
        return LogLines(self.attempt, place.line + 1, self.texts[num_told:])

    def as_json(self, job_id: str) -> str:
        """Return them as an update has them."""
        return json.dumps(
            {"job_id": job_id, "attempt": self.attempt, "first_line": self.first, "lines": list(self.texts)}
        )


class LineSplitter:
    """Numbers the lines of an attempt's log, which comes in chunks that end anywhere.

    Args:
        attempt: The attempt.
    """

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._num_lines = 0
        self._rest = b""
        self._num_dropped = 0

    def add(self, chunk: bytes) -> list[LogLines]:
        """Take a chunk; gives the lines that it ends, some at a time."""
        first, *others = chunk.split(b"\n")
        if not others:
            self._begin(self._rest + first)
            return []
        ended = [self._with_words(self._rest + first)]
        self._num_dropped = 0
        ended += map(self._with_words, others[:-1])
        self._rest = b""
        self._begin(others[-1])
        return self._numbered(without_secrets(b"\n".join(ended)).split(b"\n"))

    def finish(self) -> list[LogLines]:
        """Give what comes behind the last end of a line, once nothing more comes."""
        rest, self._rest = self._rest, b""
        return self._numbered([without_secrets(self._with_words(rest))]) if rest else []

    def _begin(self, line: bytes) -> None:
        self._rest = line[:MAX_LINE_BYTES]
        self._num_dropped += len(line) - len(self._rest)

    def _with_words(self, line: bytes) -> bytes:
        num_dropped = self._num_dropped + max(0, len(line) - MAX_LINE_BYTES)
        return line[:MAX_LINE_BYTES] + (b"... [%d more bytes]" % num_dropped if num_dropped else b"")

    def _numbered(self, lines: list[bytes]) -> list[LogLines]:
        found: list[LogLines] = []
        texts: list[str] = []
        for line in lines:
            text = _as_text(line)
            left_out = _LEFT_OUT.match(text)
            is_break = left_out is not None and int(left_out[1]) > 1
            if texts and (is_break or len(texts) == MAX_LINES):
                found.append(self._batch(texts))
                texts = []
            # The words stand in the place of the last line that is left out.
            self._num_lines += int(left_out[1]) if left_out is not None and is_break else 1
            texts.append(text)
        if texts:
            found.append(self._batch(texts))
        return found

    def _batch(self, texts: list[str]) -> LogLines:
        return LogLines(self._attempt, self._num_lines - len(texts) + 1, tuple(texts))


def _as_text(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")


async def log_in_slices(job: JobRecord, attempt: int, backends: Backends, *, follow: bool) -> AsyncGenerator[bytes]:
    """Stream the log of one attempt in pieces so small that other requests are answered between them.

    Args:
        job: The job.
        attempt: Which attempt.
        backends: See `Backends`.
        follow: Go on with what comes until the attempt has ended.
    """
    async with aclosing(whole_log_of(job, attempt, backends, follow=follow)) as chunks:
        async for chunk in chunks:
            for start in range(0, len(chunk), _SLICE_BYTES):
                yield chunk[start : start + _SLICE_BYTES]
                await asyncio.sleep(0)


async def lines_until_now(job: JobRecord, backends: Backends, place: LinePlace) -> AsyncGenerator[LogLines]:
    """The lines behind a place that are there already, of that attempt and those after it.

    A log that is gone with its cluster is left out, and so is a last line that hasn't ended.

    Args:
        job: The job.
        backends: See `Backends`.
        place: The place.

    Raises:
        CapacityError: Ray didn't answer.
    """
    for attempt in range(max(place.attempt, 1), job.attempt + 1):
        splitter = LineSplitter(attempt)
        try:
            async with aclosing(log_in_slices(job, attempt, backends, follow=False)) as slices:
                async for each in slices:
                    for lines in splitter.add(each):
                        if (rest := lines.behind(place)) is not None:
                            yield rest
        except NotFoundError:
            continue
        if attempt < job.attempt:
            for lines in splitter.finish():
                if (rest := lines.behind(place)) is not None:
                    yield rest
