"""Rows of a JSON array of objects, one at a time, however long the array is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.strict_json import MAX_JSON_DEPTH
from sienn_ray.datasets.utf8 import CHUNK_BYTES, utf8_chunks
from sienn_ray.datasets.wording import kind_of, shown
from sienn_ray.errors import InvalidDatasetError

_MAX_REASON_CHARS = 120


def read_json_array(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a JSON file that is one array of objects.

    Yields:
        Rows, and in place of a row that is no object, is too deeply nested or repeats a key, its error.

    Raises:
        InvalidDatasetError: The file is no JSON array, or a row is too long.
    """
    parser = _ArrayParser(source, max_row_bytes)
    try:
        yield from parser.rows()
    except (ijson.JSONError, ValueError, ArithmeticError, RecursionError) as error:
        raise parser.error(_reason(error)) from error


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
            raise InvalidDatasetError(
                f"row {self.row}: longer than {self._max_row_bytes:,} bytes; shorten or split it", self.row
            )
        chunk = next(self._chunks, b"")
        self._row_bytes += len(chunk)
        return chunk


class _RowError(Exception):
    """A row can't be used, but the parser can go on behind it.

    Args:
        message: What is wrong.
        num_open: Lists and objects of the row that are still open.
    """

    def __init__(self, message: str, num_open: int) -> None:
        super().__init__(message)
        self.message = message
        self.num_open = num_open


class _ArrayParser:
    """Builds rows from parse events, since ijson's own builder keeps the last of two equal keys without a word."""

    def __init__(self, source: BinaryIO, max_row_bytes: int) -> None:
        self._feed = _BoundedFeed(source, max_row_bytes)
        # use_float: without it, ijson 3.6's C code leaves a null pointer behind on integers of over 4,300 digits.
        self._events: Iterator[tuple[str, Any]] = ijson.basic_parse(self._feed, buf_size=CHUNK_BYTES, use_float=True)
        self._is_in_row = False
        self._num_open = 0  # lists and objects of a row that was given up

    def rows(self) -> Iterator[RawRow | InvalidDatasetError]:
        self._enter_array()
        for event, value in self._events:
            if event == "end_array":
                continue  # the parser goes on to look for trailing garbage
            self._is_in_row = True
            yield self._row(event, value)
            self._skip()
            self._is_in_row = False
            self._feed.end_row()

    def error(self, message: str) -> InvalidDatasetError:
        """An error that says where the parser is."""
        row = self._feed.row
        if self._is_in_row:
            return InvalidDatasetError(f"row {row}: {message}", row)
        return InvalidDatasetError(f"after row {row - 1}: {message}" if row > 1 else f"before the first row: {message}")

    def _row(self, event: str, value: Any) -> RawRow | InvalidDatasetError:
        try:
            return RawRow(self._row_object(event, value), self._feed.row, is_array_item=True)
        except _RowError as error:
            self._num_open = error.num_open
            return self.error(error.message)

    def _row_object(self, event: str, value: Any) -> dict[str, Any]:
        if event == "start_map":
            return self._object(depth=1)
        if event == "start_array":
            raise _RowError("must be an object, got a list", num_open=1)
        raise _RowError(f"must be an object, got {kind_of(value)}", num_open=0)

    def _skip(self) -> None:
        """Go on to the end of a row that was given up."""
        while self._num_open:
            event, _ = next(self._events)
            self._num_open += event.startswith("start_") - event.startswith("end_")

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
                raise _RowError(f"the key {shown(key)} comes more than once in an object", num_open=depth)
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
            raise _RowError(f"nested deeper than {MAX_JSON_DEPTH} levels", num_open=depth)


def _reason(error: Exception) -> str:
    # yajl adds lines that draw where the fault is, with content of the file.
    reason = (str(error).splitlines() or [type(error).__name__])[0][:_MAX_REASON_CHARS]
    if "premature EOF" in reason or "Incomplete" in reason:
        return "the JSON ends before the array is closed; was the file cut short?"
    if "overflow" in reason:
        return "a number is out of range (over 64 bits); write it as a string"
    return f"invalid JSON: {reason}"
