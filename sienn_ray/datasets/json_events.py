"""Parse events of a JSON file, and the rows that are built from them one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import ijson

from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.strict_json import MAX_JSON_DEPTH
from sienn_ray.datasets.utf8 import CHUNK_BYTES, utf8_chunks
from sienn_ray.datasets.wording import kind_of, shown
from sienn_ray.errors import InvalidDatasetError


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
        """Count from here, for the next row."""
        self.row += 1
        self._row_bytes = 0

    def end_value(self) -> None:
        """Count from here, behind a value that isn't kept."""
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


class RowError(Exception):
    """A row can't be used, but the parser can go on behind it.

    Args:
        message: What is wrong.
        num_open: Lists and objects of the row that are still open.
    """

    def __init__(self, message: str, num_open: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.num_open = num_open


class JsonEvents:
    """Builds rows from parse events, since ijson's own builder keeps the last of two equal keys without a word.

    Args:
        source: The file.
        max_row_bytes: The longest row.
    """

    def __init__(self, source: BinaryIO, max_row_bytes: int) -> None:
        self._feed = _BoundedFeed(source, max_row_bytes)
        # use_float: without it, ijson 3.6's C code leaves a null pointer behind on integers of over 4,300 digits.
        self._events: Iterator[tuple[str, Any]] = ijson.basic_parse(self._feed, buf_size=CHUNK_BYTES, use_float=True)
        self._is_in_row = False
        self._num_open = 0  # lists and objects of a row that was given up

    def next(self) -> tuple[str, Any]:
        """Return the next event, with its value."""
        return next(self._events)

    def peek(self) -> str:
        """Return the next event, which stays the next one."""
        event = next(self._events)
        self._events = chain([event], self._events)
        return event[0]

    def rows(self, build: Callable[[Any], dict[str, Any]] | None = None) -> Iterator[RawRow | InvalidDatasetError]:
        """Yield the items of an array of which the begin was read; it is read to its end.

        Args:
            build: Makes a row from an item that isn't an object, or from one that holds the row; raises `RowError`.
        """
        for event, value in self._events:
            if event == "end_array":
                return
            self._is_in_row = True
            yield self._row(event, value, build)
            self._skip()
            self._is_in_row = False
            self._feed.end_row()

    def end(self) -> None:
        """Read to the end of the file; anything but white space is an error."""
        for _ in self._events:
            pass

    def skip(self, event: str) -> None:
        """Go on behind a value of which the first event was read, whatever is in it."""
        num_open = _opened(event)
        while num_open:
            num_open += _opened(self.next()[0])
            self._feed.end_value()

    def value(self, event: str, value: Any, depth: int = 1) -> Any:
        """Build a value of which the first event was read.

        Raises:
            RowError: It is nested too deeply, or an object has a key twice.
        """
        if event == "start_map":
            return self._object(depth)
        return self._list(depth) if event == "start_array" else value

    def error(self, message: str) -> InvalidDatasetError:
        """An error that says where the parser is."""
        row = self._feed.row
        if self._is_in_row:
            return InvalidDatasetError(f"row {row}: {message}", row)
        return InvalidDatasetError(f"after row {row - 1}: {message}" if row > 1 else f"before the first row: {message}")

    def _row(
        self, event: str, value: Any, build: Callable[[Any], dict[str, Any]] | None
    ) -> RawRow | InvalidDatasetError:
        try:
            values = self._row_object(event, value) if build is None else build(self.value(event, value))
        except RowError as error:
            self._num_open = error.num_open
            return self.error(error.message)
        return RawRow(values, self._feed.row, is_array_item=True)

    def _row_object(self, event: str, value: Any) -> dict[str, Any]:
        if event == "start_map":
            return self._object(depth=1)
        if event == "start_array":
            raise RowError("must be an object, got a list", num_open=1)
        raise RowError(f"must be an object, got {kind_of(value)}")

    def _skip(self) -> None:
        """Go on to the end of a row that was given up."""
        while self._num_open:
            self._num_open += _opened(self.next()[0])

    def _object(self, depth: int) -> dict[str, Any]:
        self._check_depth(depth)
        values: dict[str, Any] = {}
        for event, key in self._events:
            if event == "end_map":
                break
            if key in values:
                raise RowError(f"the key {shown(key)} comes more than once in an object", num_open=depth)
            values[key] = self.value(*next(self._events), depth + 1)
        return values

    def _list(self, depth: int) -> list[Any]:
        self._check_depth(depth)
        values: list[Any] = []
        for event, value in self._events:
            if event == "end_array":
                break
            values.append(self.value(event, value, depth + 1))
        return values

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_JSON_DEPTH:
            raise RowError(f"nested deeper than {MAX_JSON_DEPTH} levels", num_open=depth)


def _opened(event: str) -> int:
    """Lists and objects that an event opens, or -1 where it closes one."""
    return event.startswith("start_") - event.startswith("end_")
