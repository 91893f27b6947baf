"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from sienn_ray.datasets.columns import normalized_column, repeated_column
from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.files.parquet_limits import (
    check_growth,
    check_row_group,
    columns_of,
    columns_of_dictionaries,
    rows_at_once,
)
from sienn_ray.datasets.files.parquet_sizes import pieces
from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.unread import Unread
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

MAGIC = b"PAR1"
_BUFFER_BYTES = 1024 * 1024
# Of the footer, which describes the columns of all row groups.
_MAX_FOOTER_STRING_BYTES = 16 * 1024 * 1024
_MAX_FOOTER_ITEMS = 1_000_000
_MAX_COLUMNS = 1_000
_MAX_TYPE_CHARS = 100
_PLAIN_KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    kinds.is_string,
    kinds.is_large_string,
    kinds.is_string_view,
    kinds.is_primitive,
    kinds.is_decimal,
    kinds.is_null,
)


def read_parquet(source: BinaryIO, max_row_bytes: int, notes: FileNotes) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a Parquet file: text, numbers, and lists, maps and structs of these; other columns are there as `Unread`.

    Args:
        source: The file; it is read from any place.
        max_row_bytes: The most that the values of one row may have.
        notes: Told of columns that are left out.

    Yields:
        Rows, with lists and objects as a JSON file would have them.

    Raises:
        InvalidDatasetError: The file is damaged, takes too much memory to read, or a row is too long.
    """
    try:
        with _opened(source) as file:
            yield from _Rows(file, source, max_row_bytes, notes).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InvalidDatasetError(
            f"the Parquet file can't be read ({reason}); was it cut or changed on the way? "
            "Write it again, without encryption"
        ) from error


def _opened(source: BinaryIO, **options: Any) -> pq.ParquetFile:
    source.seek(0)
    return pq.ParquetFile(
        pa.PythonFile(source, mode="r"),
        buffer_size=_BUFFER_BYTES,
        thrift_string_size_limit=_MAX_FOOTER_STRING_BYTES,
        thrift_container_size_limit=_MAX_FOOTER_ITEMS,
        **options,
    )


class _Rows:
    """The rows of an open file."""

    def __init__(self, file: pq.ParquetFile, source: BinaryIO, max_row_bytes: int, notes: FileNotes) -> None:
        self._file = file
        self._source = source
        self._file_bytes = source.seek(0, io.SEEK_END)
        self._max_row_bytes = max_row_bytes
        self._notes = notes
        self._unread: dict[str, Unread | None] = {}  # by column

    def read(self) -> Iterator[RawRow]:
        names = self._columns()
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        for number, group in enumerate(groups):
            check_row_group(group, number, names)
        kept = columns_of_dictionaries(metadata, self._source, names)
        file = _opened(self._source, read_dictionary=kept, metadata=metadata) if kept else self._file
        num_rows = num_bytes = 0
        for number, group in enumerate(groups):
            batches = file.iter_batches(
                batch_size=rows_at_once(group, self._source, names, kept),
                row_groups=[number],
                columns=names,
                use_threads=False,
            )
            for batch in batches:
                for piece, sizes in pieces(batch, self._max_row_bytes):
                    if sizes.is_beyond(self._max_row_bytes):
                        raise self._too_long(num_rows + 1)
                    num_bytes += sizes.num_bytes
                    check_growth(num_bytes, self._file_bytes)
                    columns = self._plain_columns(piece)
                    for offset in range(piece.num_rows):
                        num_rows += 1
                        yield RawRow(self._values(columns, offset, num_rows), num_rows, is_array_item=True)

    def _plain_columns(self, piece: pa.RecordBatch) -> dict[str, Any]:
        """The columns of some rows as the file describes them, with texts in place of references to them."""
        kinds_of = self._file.schema_arrow
        return {name: piece.column(name).cast(kinds_of.field(name).type) for name in piece.schema.names}

    def _columns(self) -> list[str]:
        """Names of the columns that can be read; the others are noted."""
        schema = self._file.schema_arrow
        if len(schema.names) > _MAX_COLUMNS:
            raise InvalidDatasetError(
                f"the file has {len(schema.names):,} columns; at most {_MAX_COLUMNS:,} are taken, leave out "
                "those that no format reads"
            )
        if len({normalized_column(name) for name in schema.names}) < len(schema.names):
            raise InvalidDatasetError(f"the file has the column {repeated_column(schema.names)} more than once")
        names = []
        for field in schema:
            if kinds.is_binary(field.type) or kinds.is_large_binary(field.type) or _is_readable(field.type):
                names.append(field.name)
            else:
                self._unread[field.name] = Unread(_shown_type(field.type)) if self._is_filled(field.name) else None
                self._notes.add(
                    f"column {shown(field.name)} was left out: it holds {_shown_type(field.type)}, and no text"
                )
        if not names:
            raise InvalidDatasetError("the file has no column of text")
        return names

    def _is_filled(self, name: str) -> bool:
        """Return whether a column has values; one whose nulls weren't counted by its writer may have some."""
        metadata = self._file.metadata
        groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        columns = (column for group in groups for column in columns_of(group, [name]))
        return any(
            (found := column.statistics) is None or not found.has_null_count or found.null_count < column.num_values
            for column in columns
        )

    def _values(self, columns: Mapping[str, Any], offset: int, number: int) -> dict[str, Any]:
        size = _Size(self._max_row_bytes)
        try:
            read = {name: self._top(name, column[offset], size) for name, column in columns.items()}
        except KeyError as error:  # strict maps
            raise InvalidDatasetError(f"row {number}: a map has the key {error} twice; keep one", number) from None
        except _TooLongError:
            raise self._too_long(number) from None
        return {**read, **self._unread}

    def _too_long(self, number: int) -> InvalidDatasetError:
        return InvalidDatasetError(
            f"row {number}: longer than {self._max_row_bytes:,} bytes; shorten or split it", number
        )

    def _top(self, name: str, scalar: Any, size: _Size) -> Any:
        value = scalar.as_py(maps_as_pydicts="strict")
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                self._notes.add(f"column {shown(name)} has bytes that are no text in UTF-8; they are not read")
                return Unread("bytes that are no text in UTF-8")
        return _plain(value, size)


class _TooLongError(Exception):
    """A row has more than the most bytes."""


class _Size:
    """The size of a row, as its values are gone through."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def add(self, text: str) -> None:
        self._left -= len(text) if len(text) <= self._left // 4 else len(text.encode("utf-8", "replace"))
        if self._left < 0:
            raise _TooLongError


def _plain(value: Any, size: _Size) -> Any:
    """A value as JSON could have it.

    A struct has all keys that any row has, so those within a row that are null are left out; `content` may be null.
    """
    if isinstance(value, str):
        size.add(value)
        return value
    if isinstance(value, dict):
        return {key: _plain(each, size) for key, each in value.items() if each is not None or key == "content"}
    if isinstance(value, list):
        return [_plain(each, size) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)


def _shown_type(kind: pa.DataType) -> str:
    """Return a type's name, which may be as long as its fields are many."""
    name = str(kind)
    return name if len(name) <= _MAX_TYPE_CHARS else name[:_MAX_TYPE_CHARS] + "…"


def _is_readable(kind: pa.DataType) -> bool:
    """Return whether the values of a type have a form in JSON."""
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.JsonType)
    if kinds.is_dictionary(kind):
        return _is_readable(kind.value_type)
    if kinds.is_struct(kind):
        return all(_is_readable(field.type) for field in kind)
    if kinds.is_map(kind):
        return kinds.is_string(kind.key_type) and _is_readable(kind.item_type)
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _is_readable(kind.value_type)
    return any(is_one(kind) for is_one in _PLAIN_KINDS)
