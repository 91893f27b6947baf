"""Rows of a JSON file: of an array of objects, or of one that is in an object, one at a time, however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import ijson

from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.json_events import JsonEvents
from sienn_ray.datasets.json_wrapper import wrapped_rows
from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.wording import kind_of
from sienn_ray.errors import InvalidDatasetError

_MAX_REASON_CHARS = 120


def read_json_array(
    source: BinaryIO, max_row_bytes: int, notes: FileNotes | None = None
) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a JSON file that is one array of objects, or an object that has it.

    Args:
        source: The file.
        max_row_bytes: The longest row accepted.
        notes: Takes under which key the array is, and the others.

    Yields:
        Rows, and in place of a row that is no object, is too deeply nested or repeats a key, its error.

    Raises:
        InvalidDatasetError: There is no such array in the file, or a row is too long.
    """
    events = JsonEvents(source, max_row_bytes)
    try:
        yield from _rows(events, notes or FileNotes())
        events.end()
    except (ijson.JSONError, ValueError, ArithmeticError, RecursionError) as error:
        raise events.error(_reason(error)) from error


def _rows(events: JsonEvents, notes: FileNotes) -> Iterator[RawRow | InvalidDatasetError]:
    event, value = events.next()
    if event == "start_map":
        return wrapped_rows(events, notes)
    if event == "start_array":
        return events.rows()
    raise InvalidDatasetError(f"the file must be an array of objects, got {kind_of(value)}")


def _reason(error: Exception) -> str:
    # yajl adds lines that draw where the fault is, with content of the file.
    reason = (str(error).splitlines() or [type(error).__name__])[0][:_MAX_REASON_CHARS]
    if "premature EOF" in reason or "Incomplete" in reason:
        return "the JSON ends before the array is closed; was the file cut short?"
    if "overflow" in reason:
        return "a number is out of range (over 64 bits); write it as a string"
    return f"invalid JSON: {reason}"
