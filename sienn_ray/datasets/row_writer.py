"""Write canonical rows as Parquet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import BinaryIO

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


class RowWriter:
    """Writes rows with the columns of `PARQUET_SCHEMA` in groups that are bounded in rows and in memory."""

    def __init__(self, sink: BinaryIO | pa.NativeFile) -> None:
        # Nobody filters by value, and the smallest and largest text of each group would be kept in the file's footer.
        self._parquet = pq.ParquetWriter(sink, PARQUET_SCHEMA, compression="zstd", write_statistics=False)
        self._num_written = 0
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._messages: list[list[tuple[str, str, str | None]] | None] = []
        self._texts: list[str | None] = []
        self._empty_columns: list[list[int]] = []
        self._rejected: list[str | None] = []
        self._rejected_extras: list[str | None] = []
        self._tools: list[str | None] = []
        self._labels: list[bool | None] = []
        self._variables: list[str | None] = []
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
        self._lines.append(line)
        self._messages.append(
            None
            if row.messages is None
            else [(str(message.role), message.content, extra_of(message)) for message in row.messages]
        )
        self._texts.append(row.text)
        self._empty_columns.append(empty_columns)
        self._rejected.append(None if row.rejected is None else row.rejected.content)
        self._rejected_extras.append(None if row.rejected is None else extra_of(row.rejected))
        self._tools.append(row.tools)
        self._labels.append(row.label)
        self._variables.append(row.chat_template_kwargs)
        self._num_bytes += _size_bytes(row)
        if len(self._lines) >= MAX_ROW_GROUP_ROWS or self._num_bytes >= MAX_ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._lines:
            return
        rows = range(self._num_written, self._num_written + len(self._lines))
        columns = [
            rows,
            self._lines,
            self._messages,
            self._texts,
            self._empty_columns,
            self._rejected,
            self._rejected_extras,
            self._tools,
            self._labels,
            self._variables,
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, PARQUET_SCHEMA, strict=True)]
        self._num_written += len(self._lines)
        self._clear()
        self._parquet.write_batch(pa.RecordBatch.from_arrays(arrays, schema=PARQUET_SCHEMA))


def _size_bytes(row: CanonicalRow) -> int:
    """About how much memory a row takes."""
    if row.messages is None:
        return _ROW_BYTES + sys.getsizeof(row.text)
    num_bytes = _ROW_BYTES + sum(map(_message_size_bytes, row.messages))
    num_bytes += 0 if row.rejected is None else _message_size_bytes(row.rejected)
    return num_bytes + sum(sys.getsizeof(text) for text in (row.tools, row.chat_template_kwargs) if text is not None)


def _message_size_bytes(message: Message) -> int:
    num_bytes = _MESSAGE_BYTES + sys.getsizeof(message.content)
    if message.reasoning_content is not None:
        num_bytes += sys.getsizeof(message.reasoning_content)
    return num_bytes + sum(_MESSAGE_BYTES + sys.getsizeof(call.arguments) for call in message.tool_calls)
