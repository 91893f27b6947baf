"""Rows of JSON objects that are spread over lines, one behind the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from sienn_ray.datasets.readers import RawRow, json_object
from sienn_ray.datasets.utf8 import text_lines
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

# Strings and brackets. Nothing is gone back over (`*+`), or a string that is never closed would take quadratic time.
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|(?P<unclosed>\\?$))|[{}\[\]]')
_BRACKETS = re.compile(r"[{}\[\]]")
# What may be between objects: an editor's commas and what files put together have.
_BETWEEN = " \t\r\n,\ufeff"


def read_spread_json(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow | InvalidDatasetError]:
    """Read objects one behind the other, each on as many lines as it likes; commas between them are left out.

    Yields:
        Rows, and in place of an object that can't be read its error.

    Raises:
        InvalidDatasetError: An object is too long, or is never closed.
    """
    for line, found in _Objects(source, max_row_bytes).found():
        if isinstance(found, InvalidDatasetError):
            yield found
            continue
        try:
            yield RawRow(json_object(found), line)
        except InvalidDatasetError as error:
            cause = error.__cause__
            further = cause.lineno - 1 if isinstance(cause, json.JSONDecodeError) else 0
            yield InvalidDatasetError(error.message, line + further)


class _Objects:
    """Splits a text into the objects that stand in it."""

    def __init__(self, source: BinaryIO, max_row_bytes: int) -> None:
        self._lines = text_lines(source, max_row_bytes)
        self._max_row_bytes = max_row_bytes
        self._pieces: list[str] = []
        self._num_bytes = 0
        self._depth = 0
        self._line = 0  # where the object begins

    def found(self) -> Iterator[tuple[int, str | InvalidDatasetError]]:
        for number, line in enumerate(self._lines, start=1):
            yield from self._of_line(number, line)
        if self._depth:
            raise InvalidDatasetError(
                "the object that begins here is never closed; was the file cut short?", self._line
            )

    def _of_line(self, number: int, line: str) -> Iterator[tuple[int, str | InvalidDatasetError]]:
        begin = end = 0
        for bracket in _tokens(line):
            kind = bracket[0]
            if not self._depth:
                if (stray := line[end : bracket.start()].strip(_BETWEEN)) or kind != "{":
                    yield number, _stray(stray or kind, number)
                    return
                begin, self._line = bracket.start(), number
            self._depth += (kind in "{[") - (kind in "}]")
            if not self._depth:
                end = bracket.end()
                yield self._line, self._whole(line[begin:end])
        if self._depth:
            self._add(line[begin:])
        elif stray := line[end:].strip(_BETWEEN):
            yield number, _stray(stray, number)

    def _add(self, piece: str) -> None:
        self._pieces.append(piece)
        self._num_bytes += len(piece.encode())
        if self._num_bytes > self._max_row_bytes:
            raise InvalidDatasetError(
                f"the object that begins here is longer than {self._max_row_bytes:,} bytes; is a bracket left open?",
                self._line,
            )

    def _whole(self, last: str) -> str:
        self._add(last)
        text = "".join(self._pieces)
        self._pieces.clear()
        self._num_bytes = 0
        return text


def _tokens(line: str) -> Iterator[re.Match[str]]:
    """Find strings and brackets; those behind the quote of a string that is never closed count, as it is a fault."""
    for token in _TOKENS.finditer(line):
        if token["unclosed"] is None:
            yield token
        else:
            yield from _BRACKETS.finditer(line, token.start())


def _stray(text: str, line: int) -> InvalidDatasetError:
    return InvalidDatasetError(f"{shown(text)} stands outside of the objects; each row must be a JSON object", line)
