"""Rows within a JSON object: lists that datasets are wrapped in, and tables as pandas and the hub write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.json_events import JsonEvents, RowError
from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.shared_values import SharedValues
from sienn_ray.datasets.wording import kind_of, listed, shown
from sienn_ray.errors import InvalidDatasetError

# Lists of objects that are parts of a single row, or describe the rows.
_NO_ROWS = frozenset(
    {"messages", "conversations", "conversation", "prompt", "completion", "chosen", "rejected", "tools", "functions"}
    | {"features", "fields", "schema"}
)
_MAX_COLUMNS = 1_000
_AS_RECORDS = "df.to_json('rows.jsonl', orient='records', lines=True)"


def wrapped_rows(events: JsonEvents, notes: FileNotes) -> Iterator[RawRow | InvalidDatasetError]:
    """Read the rows of an object of which the begin was read: `{"data": [{...}, ...]}`, whatever the list is called.

    What the hub's server of datasets answers with, and pandas' orients `split` and `table`, are such objects too.

    Yields:
        Rows, and in place of a row that can't be used its error.

    Raises:
        InvalidDatasetError: It has no list of objects, or more than one, or a table by columns, or something beside the
            rows that would change what is learned and can't be read.
    """
    yield from _Wrapper(events, notes).rows()


class _Wrapper:
    """An object that has the rows of a file."""

    def __init__(self, events: JsonEvents, notes: FileNotes) -> None:
        self._events = events
        self._notes = notes
        self._found: str | None = None  # the key that the rows are under
        self._columns: list[str] | None = None
        self._column: str | None = None  # the first key with a list of plain values
        self._has_values = False
        self._shared = SharedValues(notes)

    def rows(self) -> Iterator[RawRow | InvalidDatasetError]:
        while (event := self._events.next())[0] != "end_map":
            name = event[1]
            kind, value = self._events.next()
            if kind == "start_array":
                yield from self._list(name)
            elif kind == "start_map":
                self._skip_object(name)
            else:
                self._has_values = True
                self._beside(name, value)
        if self._found is None:
            raise self._no_rows()

    def _list(self, name: str) -> Iterator[RawRow | InvalidDatasetError]:
        if name == "columns":
            self._columns = _column_names(self._events)
            return
        first = self._events.peek()
        if name in _NO_ROWS or not first.startswith("start_"):
            if name != "index" and first not in ("start_map", "end_array"):
                self._column = self._column or name
            if first == "start_map" and self._shared.is_read(name):
                self._beside(name, self._value("start_array", None))
            else:
                self._events.skip("start_array")
                self._notes.ignore(name)
            return
        if self._found is not None:
            raise InvalidDatasetError(
                f"the file has two lists of rows, {shown(self._found)} and {shown(name)}; upload each as its own file"
            )
        self._found = name
        self._notes.guess("rows", f"the list under {shown(name)}")
        build = _builder(first, name, self._columns)
        yield from self._events.rows(lambda item: self._shared.added_to(build(item)))

    def _skip_object(self, name: str) -> None:
        """Go on behind an object, and refuse one that is a row, or a column by the numbers of its rows."""
        if name.isdecimal():
            raise _by("numbers of its rows", name)
        event, key = self._events.next()
        if event == "end_map":
            return
        kind, value = self._events.next()
        if key.isdecimal() and not kind.startswith("start_"):
            raise _by("columns", name)
        if self._shared.is_read(name):
            self._beside(name, self._object(key, kind, value))
            return
        self._notes.ignore(name)
        self._events.skip(kind)
        while self._events.next()[0] != "end_map":
            self._events.skip(self._events.next()[0])

    def _object(self, key: str, kind: str, value: Any) -> dict[str, Any]:
        """An object of which the first key and the begin of its value were read."""
        values = {key: self._value(kind, value)}
        while (event := self._events.next())[0] != "end_map":
            if event[1] in values:
                raise self._events.error(f"the key {shown(event[1])} comes more than once in an object")
            values[event[1]] = self._value(*self._events.next())
        return values

    def _value(self, kind: str, value: Any) -> Any:
        try:
            return self._events.value(kind, value)
        except RowError as error:
            raise self._events.error(error.message) from error

    def _beside(self, name: str, value: Any) -> None:
        """Take a value that stands beside the rows."""
        if not self._shared.take(name, value, is_before=self._found is None):
            self._notes.ignore(name)

    def _no_rows(self) -> InvalidDatasetError:
        if self._column is not None and not self._has_values:
            return _by("columns", self._column)
        return InvalidDatasetError(
            "the file must be an array of objects, got an object; put the rows in [...], "
            "or name the file .jsonl if each line is an object"
        )


def _builder(first: str, name: str, columns: Sequence[str] | None) -> Callable[[Any], dict[str, Any]]:
    if first == "start_map":
        return _object_row
    if columns is None:
        raise InvalidDatasetError(
            f"the rows in {shown(name)} are lists, and no list 'columns' before them names their values; write "
            f"objects, by pandas' {_AS_RECORDS}"
        )
    names = tuple(columns)

    def row(item: Any) -> dict[str, Any]:
        if not isinstance(item, list) or len(item) != len(names):
            found = f"{len(item)} values" if isinstance(item, list) else kind_of(item)
            raise RowError(f"must be a list of {len(names)} values, one for each of {listed(names)}, got {found}")
        return dict(zip(names, item, strict=True))

    return row


def _object_row(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise RowError(f"must be an object, got {kind_of(item)}")
    inner = item.get("row")
    if not isinstance(inner, dict) or "row_idx" not in item:
        return item
    if item.get("truncated_cells"):
        raise RowError("the server that the file is from has cut the row's values; download the dataset's own files")
    return inner


def _column_names(events: JsonEvents) -> list[str]:
    columns: list[str] = []
    while (event := events.next())[0] != "end_array":
        if event[0] != "string" or len(columns) == _MAX_COLUMNS:
            raise InvalidDatasetError(
                f"'columns' must be a list of at most {_MAX_COLUMNS:,} names; write objects, by pandas' {_AS_RECORDS}"
            )
        columns.append(event[1])
    if len(set(columns)) < len(columns):
        raise InvalidDatasetError("'columns' has a name more than once; give each column one of its own")
    return columns


def _by(kind: str, name: str) -> InvalidDatasetError:
    return InvalidDatasetError(
        f"the file is a table by {kind}, of which the first is {shown(name)}, and a list of rows is needed; write it "
        f"by pandas' {_AS_RECORDS} and upload rows.jsonl"
    )
