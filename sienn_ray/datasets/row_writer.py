"""Write canonical rows as Parquet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sienn_ray.datasets.schema import PARQUET_SCHEMA, CanonicalRow, Message
from sienn_ray.datasets.stored_rows import extra_of

# A row group is held in memory until it is written, and a trace of each until the file is closed: many small groups of
# tiny rows would take as much memory as the file has bytes.
MAX_ROW_GROUP_ROWS = 20_000
MAX_ROW_GROUP_BYTES = 8 * 1024 * 1024

_ROW_BYTES = 200
_MESSAGE_BYTES = 100
_FIELDS = list(PARQUET_SCHEMA.field("messages").type.value_type)


class RowWriter:
    """Writes rows with the columns of `PARQUET_SCHEMA` in groups that are bounded in rows and in memory."""

    def __init__(self, sink: BinaryIO | pa.NativeFile) -> None:
        # Nobody filters by value, and the smallest and largest text of each group would be kept in the file's footer.
        self._parquet = pq.ParquetWriter(sink, PARQUET_SCHEMA, compression="zstd", write_statistics=False)
        self._num_written = 0
        self._clear()

    def _clear(self) -> None:
        # Messages of all rows, one behind the other: pyarrow takes a while for lists of tuples.
        self._roles: list[str] = []
        self._contents: list[str] = []
        self._extras: list[str | None] = []
        self._columns: list[list[Any]] = [[] for _ in PARQUET_SCHEMA]
        self._num_bytes = 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Closed after an error too: pyarrow would otherwise do it when collecting garbage, on a sink that may be gone.
        try:
            if error is None:
                self._flush()
        finally:
            self._parquet.close()

    def add(self, row: CanonicalRow, line: int, empty_columns: list[int]) -> None:
        """Add one row.

        Args:
            row: The row.
            line: Where it begins in the file.
            empty_columns: See `columns.empty_columns`.
        """
        num_bytes = _ROW_BYTES
        for message in row.messages or ():
            num_bytes += self._add_message(message)
        rejected = row.rejected
        values = (
            self._num_written + len(self._columns[0]),
            line,
            None if row.messages is None else len(self._roles) - len(row.messages),  # where they begin
            row.text,
            empty_columns,
            None if rejected is None else rejected.content,
            None if rejected is None else extra_of(rejected),
            row.tools,
            row.label,
            row.chat_template_kwargs,
        )
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if row.text is not None:
            num_bytes += sys.getsizeof(row.text)
        elif rejected is not None or row.tools is not None or row.chat_template_kwargs is not None:
            num_bytes += sum(sys.getsizeof(value) for value in values[5:] if isinstance(value, str))
        self._num_bytes += num_bytes
        if len(self._columns[0]) >= MAX_ROW_GROUP_ROWS or self._num_bytes >= MAX_ROW_GROUP_BYTES:
            self._flush()

    def _add_message(self, message: Message) -> int:
        """Add a message, and return about how many bytes it takes."""
        extra = extra_of(message)
        self._roles.append(message.role)
        self._contents.append(message.content)
        self._extras.append(extra)
        num_bytes = _MESSAGE_BYTES + sys.getsizeof(message.content)
        return num_bytes if extra is None else num_bytes + sys.getsizeof(extra)

    def _flush(self) -> None:
        if not self._columns[0]:
            return
        arrays = [
            self._message_lists(column) if field.name == "messages" else pa.array(column, field.type)
            for column, field in zip(self._columns, PARQUET_SCHEMA, strict=True)
        ]
        self._num_written += len(self._columns[0])
        self._clear()
        self._parquet.write_batch(pa.RecordBatch.from_arrays(arrays, schema=PARQUET_SCHEMA))

    def _message_lists(self, starts: list[int | None]) -> pa.Array:
        columns = (self._roles, self._contents, self._extras)
        messages = pa.StructArray.from_arrays([pa.array(column, pa.string()) for column in columns], fields=_FIELDS)
        return pa.ListArray.from_arrays(pa.array([*starts, len(self._roles)], pa.int32()), messages)
