"""Rows of a JSON array of objects, one at a time, however long the array is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from sienn_ray.datasets.readers import MAX_JSON_DEPTH, RawRow
from sienn_ray.datasets.utf8 import CHUNK_BYTES, utf8_chunks
from sienn_ray.datasets.wording import kind_of, shown
from sienn_ray.errors import InvalidDatasetError

_MAX_REASON_CHARS = 120


def read_json_array(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow]:
    """Read a JSON file that is one array of objects.

    Raises:
        InvalidDatasetError: The file is no such array, or a row is too long or too deeply nested, or repeats a key.
    """
    parser = _ArrayParser(source, max_row_bytes)
    try:
        yield from parser.rows()
    except (ijson.JSONError, ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidDatasetError(f"{parser.place()}: {_reason(error)}") from error


class _BoundedFeed:
    """A file for ijson that refuses to go on once a row is too long.

    ijson holds a string until its end, so the bound has to be on what it is fed. A row is counted from the end of the
    chunk in which it begins, so the bound is exact to within one chunk.
    """

    def __init__(self, source: BinaryIO, max_row_bytes: int) -> None:
        self._chunks = utf8_chunks(source)
        self._max_row_bytes = max_row_bytes
        self._row_bytes = 0
        self.row = 1

    def end_row(self) -> None:
        self.row += 1
        self._row_bytes = 0

    def read(self, size: int = -1) -> bytes:
        if size == 0:  # ijson asks so to learn whether it gets bytes or str
            return b""
        if self._row_bytes > self._max_row_bytes:
            raise InvalidDatasetError(f"row {self.row}: longer than {self._max_row_bytes:,} bytes; shorten or split it")
        chunk = next(self._chunks, b"")
        self._row_bytes += len(chunk)
        return chunk


class _ArrayParser:
    """Builds rows from parse events, since ijson's own builder keeps the last of two equal keys without a word."""

    def __init__(self, source: BinaryIO, max_row_bytes: int) -> None:
        self._feed = _BoundedFeed(source, max_row_bytes)
        # use_float: without it, ijson 3.6's C code leaves a null pointer behind on integers of over 4,300 digits.
        self._events: Iterator[tuple[str, Any]] = ijson.basic_parse(self._feed, buf_size=CHUNK_BYTES, use_float=True)
        self._is_in_row = False

    def rows(self) -> Iterator[RawRow]:
        self._enter_array()
        for event, value in self._events:
            if event == "end_array":
                continue  # the parser goes on to look for trailing garbage
            if event != "start_map":
                raise self._error(f"must be an object, got {'a list' if event == 'start_array' else kind_of(value)}")
            self._is_in_row = True
            values = self._object(depth=1)
            self._is_in_row = False
            yield RawRow(values, self._feed.row, is_array_item=True)
            self._feed.end_row()

    def place(self) -> str:
        """Where the parser is, for an error message."""
        if self._is_in_row:
            return f"row {self._feed.row}"
        return f"after row {self._feed.row - 1}" if self._feed.row > 1 else "before the first row"

    def _error(self, message: str) -> InvalidDatasetError:
        return InvalidDatasetError(f"row {self._feed.row}: {message}")

    def _enter_array(self) -> None:
        event, value = next(self._events)
        if event == "start_map":
            raise InvalidDatasetError(
                "the file must be an array of objects, got an object; put the rows in [...], "
                "or name the file .jsonl if each line is an object"
            )
        if event != "start_array":
            raise InvalidDatasetError(f"the file must be an array of objects, got {kind_of(value)}")

    def _value(self, event: str, value: Any, depth: int) -> Any:
        if event == "start_map":
            return self._object(depth + 1)
        return self._list(depth + 1) if event == "start_array" else value

    def _object(self, depth: int) -> dict[str, Any]:
        self._check_depth(depth)
        values: dict[str, Any] = {}
        for event, key in self._events:
            if event == "end_map":
                break
            if key in values:
                raise self._error(f"the key {shown(key)} comes more than once in an object")
            values[key] = self._value(*next(self._events), depth)
        return values

    def _list(self, depth: int) -> list[Any]:
        self._check_depth(depth)
        values: list[Any] = []
        for event, value in self._events:
            if event == "end_array":
                break
            values.append(self._value(event, value, depth))
        return values

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_JSON_DEPTH:
            raise self._error(f"nested deeper than {MAX_JSON_DEPTH} levels")


def _reason(error: Exception) -> str:
    # yajl adds lines that draw where the fault is, with content of the file.
    reason = (str(error).splitlines() or [type(error).__name__])[0][:_MAX_REASON_CHARS]
    if "premature EOF" in reason or "Incomplete" in reason:
        return "the JSON ends before the array is closed; was the file cut short?"
    if "overflow" in reason:
        return "a number is out of range (over 64 bits); write it as a string"
    return f"invalid JSON: {reason}"
