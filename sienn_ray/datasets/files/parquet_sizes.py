"""Sizes of Arrow's values, told before any of them is made one of Python's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

ROWS_AT_ONCE = 256
# What a value takes beside its text: an object of Python's and its place in a list.
_VALUE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sizes:
    """The number of values, and the bytes of those that are text."""

    num_values: int
    num_bytes: int

    def __add__(self, other: Sizes) -> Sizes:
        """Return the sizes of both together."""
        return Sizes(self.num_values + other.num_values, self.num_bytes + other.num_bytes)

    def is_beyond(self, max_row_bytes: int) -> bool:
        """Return whether they take more memory than any row of so many bytes of JSON, whose values have two or more."""
        return self.num_values * _VALUE_BYTES + self.num_bytes > max_row_bytes * (_VALUE_BYTES // 2 + 1)


def pieces(batch: pa.RecordBatch, max_row_bytes: int) -> Iterator[tuple[pa.RecordBatch, Sizes]]:
    """Cut a batch into rows that take bounded memory together, or are a single one."""
    for begin in range(0, batch.num_rows, ROWS_AT_ONCE):
        piece = batch.slice(begin, ROWS_AT_ONCE)
        sizes = _of_rows(piece)
        if not sizes.is_beyond(max_row_bytes):
            yield piece, sizes
            continue
        for offset in range(piece.num_rows):
            row = piece.slice(offset, 1)
            yield row, _of_rows(row)


def _of_rows(rows: pa.RecordBatch) -> Sizes:
    return sum((_of(column) for column in rows.columns), Sizes(0, 0))


def _of(values: Any) -> Sizes:
    """Sizes of an array; a value of a dictionary counts wherever it stands."""
    kind = values.type
    if kinds.is_dictionary(kind):
        return _of_dictionary(values)
    if kinds.is_map(kind):
        entries = pa.StructArray.from_arrays([values.keys, values.items], names=["key", "value"])
        return _of(pa.ListArray.from_arrays(values.offsets, entries))
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return Sizes(len(values), 0) + _of(values.flatten())
    if kinds.is_struct(kind):
        return sum((_of(field) for field in values.flatten()), Sizes(len(values), 0))
    return Sizes(len(values), _num_bytes(values))


def _of_dictionary(values: Any) -> Sizes:
    if kinds.is_nested(values.type.value_type):
        return _of(values.dictionary_decode())
    lengths = _lengths(values.dictionary)
    return Sizes(len(values), 0 if lengths is None else _sum(pc.take(lengths, values.indices)))


def _num_bytes(values: Any) -> int:
    lengths = _lengths(values)
    return 0 if lengths is None else _sum(lengths)


def _lengths(values: Any) -> Any:
    """Bytes of each text; None of what is none."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if kinds.is_string_view(values.type):
        values = values.cast(pa.large_string())
    is_text = any(is_one(values.type) for is_one in (kinds.is_string, kinds.is_large_string))
    is_bytes = any(is_one(values.type) for is_one in (kinds.is_binary, kinds.is_large_binary))
    return pc.binary_length(values) if is_text or is_bytes else None


def _sum(lengths: Any) -> int:
    return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0)
