"""Limits on what Parquet files take to be read: a small file may unpack to any size."""

from __future__ import annotations

from typing import Any, BinaryIO

from sienn_ray.datasets.files.unpacked import FREE_BYTES, MAX_RATIO
from sienn_ray.errors import InvalidDatasetError

MAX_DICTIONARY_BYTES = 64 * 1024 * 1024
# Values of a column of lists in one row group: all of them might be in one row.
MAX_LIST_VALUES = 20_000_000
_MAX_ROWS_AT_ONCE = 256
_HEADER_BYTES = 64
_I32_FIELDS = 3  # kind, unpacked and packed size are the first fields of a page's header, in this order
_I32_BEHIND_THE_LAST = 0x15  # Thrift's compact protocol: the next field, a 32-bit integer


def check_row_group(group: Any, number: int) -> None:
    """Refuse a row group that unpacks to far more than it is.

    Args:
        group: Its description (`pyarrow.parquet.RowGroupMetaData`).
        number: 0-based.

    Raises:
        InvalidDatasetError: It does.
    """
    for index in range(group.num_columns):
        column = group.column(index)
        unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
        where = f"column '{column.path_in_schema}' of row group {number}"
        if unpacked > max(FREE_BYTES, MAX_RATIO * packed):
            raise InvalidDatasetError(
                f"{where} has {unpacked:,} bytes unpacked, from {packed:,} packed ones; at most {MAX_RATIO} times "
                "as many are taken; write the file without compression"
            )
        if column.num_values > max(MAX_LIST_VALUES, group.num_rows):
            raise InvalidDatasetError(
                f"{where} has {column.num_values:,} values; at most {MAX_LIST_VALUES:,} are taken in one, "
                "write smaller row groups, as by row_group_size=10000"
            )


def rows_at_once(group: Any, source: BinaryIO) -> int:
    """Return how many of a row group's rows may be unpacked together, so that they take bounded memory.

    A value that comes again and again is in the file once, in the column's dictionary, and unpacked each time; so no
    value is longer than its dictionary. Others are as long as in the file.

    Args:
        group: Its description.
        source: The file.

    Raises:
        InvalidDatasetError: A dictionary is too large.
    """
    dictionaries = sum(_dictionary_bytes(group.column(index), source) for index in range(group.num_columns))
    mean_row_bytes: int = group.total_byte_size // max(group.num_rows, 1)
    return max(1, min(_MAX_ROWS_AT_ONCE, MAX_DICTIONARY_BYTES // max(dictionaries, mean_row_bytes, 1)))


def _dictionary_bytes(column: Any, source: BinaryIO) -> int:
    """Unpacked size of a column's dictionary, from the header of its page."""
    if not column.has_dictionary_page or not column.dictionary_page_offset:
        return 0
    source.seek(column.dictionary_page_offset)
    num_bytes = _unpacked_size(source.read(_HEADER_BYTES))
    if num_bytes > MAX_DICTIONARY_BYTES:
        raise InvalidDatasetError(
            f"the dictionary of column '{column.path_in_schema}' has {num_bytes:,} bytes; at most "
            f"{MAX_DICTIONARY_BYTES:,} are taken, write the file with use_dictionary=False or with smaller row groups"
        )
    return num_bytes


def _unpacked_size(header: bytes) -> int:
    """The second field of a page's header (https://parquet.apache.org/docs/file-format/data-pages/)."""
    numbers: list[int] = []
    at = 0
    while len(numbers) < _I32_FIELDS and at < len(header) and header[at] == _I32_BEHIND_THE_LAST:
        number, shift, at = 0, 0, at + 1
        while at < len(header):
            number |= (header[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not header[at - 1] & 0x80:
                break
        numbers.append((number >> 1) ^ -(number & 1))  # zigzag
    if len(numbers) < _I32_FIELDS:
        raise InvalidDatasetError("the Parquet file is damaged: a page has no header; write it again")
    return max(numbers[1], 0)
