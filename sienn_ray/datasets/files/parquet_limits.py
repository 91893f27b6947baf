"""Limits on what Parquet files take to be read: a small file may unpack to any size."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import Any, BinaryIO

from sienn_ray.datasets.files.parquet_sizes import ROWS_AT_ONCE
from sienn_ray.datasets.files.unpacked import FREE_BYTES, MAX_RATIO
from sienn_ray.errors import InvalidDatasetError

MAX_DICTIONARY_BYTES = 64 * 1024 * 1024
# Values of a column of lists in one row group, and of all such columns: all of them might be in one row.
MAX_LIST_VALUES = 20_000_000
MAX_LIST_VALUES_TOGETHER = 30_000_000
# Of rows whose texts stay in dictionaries, more are read at once: each time, the dictionary is built anew.
MAX_ROWS_OF_DICTIONARIES = 4_096
_HEADER_BYTES = 64
_DICTIONARY_PAGE = 2
_I32_FIELDS = 3  # kind, unpacked and packed size are the first fields of a page's header, in this order
_I32_BEHIND_THE_LAST = 0x15  # Thrift's compact protocol: the next field, a 32-bit integer


def check_row_group(group: Any, number: int, names: Collection[str]) -> None:
    """Refuse a row group that unpacks to far more than it is.

    Args:
        group: Its description (`pyarrow.parquet.RowGroupMetaData`).
        number: 0-based.
        names: Columns that are read.

    Raises:
        InvalidDatasetError: It does.
    """
    num_list_values = 0
    for column in columns_of(group, names):
        unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
        where = f"column '{column.path_in_schema}' of row group {number}"
        if unpacked > max(FREE_BYTES, MAX_RATIO * packed):
            raise InvalidDatasetError(
                f"{where} has {unpacked:,} bytes unpacked, from {packed:,} packed ones; at most {MAX_RATIO} times "
                "as many are taken; write the file without compression"
            )
        if column.num_values > max(MAX_LIST_VALUES, group.num_rows):
            raise _too_many_values(where, column.num_values, MAX_LIST_VALUES)
        if column.num_values > group.num_rows:
            num_list_values += column.num_values
        if "DELTA_BYTE_ARRAY" in column.encodings:
            raise InvalidDatasetError(
                f"{where} is encoded as DELTA_BYTE_ARRAY, by which a small file unpacks to any size; write it without, "
                "as pandas and pyarrow do by themselves"
            )
    if num_list_values > MAX_LIST_VALUES_TOGETHER:
        raise _too_many_values(f"all lists of row group {number}", num_list_values, MAX_LIST_VALUES_TOGETHER)


def check_growth(num_bytes: int, file_bytes: int) -> None:
    """Refuse a file whose rows have far more text than it has bytes: texts that come again are in it once.

    Raises:
        InvalidDatasetError: They have.
    """
    if num_bytes > max(FREE_BYTES, MAX_RATIO * file_bytes):
        raise InvalidDatasetError(
            f"the rows have more than {max(FREE_BYTES, MAX_RATIO * file_bytes):,} bytes of text, from a file of "
            f"{file_bytes:,} bytes; at most {MAX_RATIO} times as many are taken; write it with use_dictionary=False"
        )


def columns_of_dictionaries(file: Any, source: BinaryIO, names: Collection[str]) -> list[str]:
    """Return the paths of columns whose texts have to stay in their dictionaries when they are read.

    One row may have any number of references to a long text if its column is of lists; unpacked, the text would be
    there each time. Without such a column, the fewer rows are read at once, the less is unpacked.

    Args:
        file: The file's description (`pyarrow.parquet.FileMetaData`).
        source: The file.
        names: Columns that are read.
    """
    paths: set[str] = set()
    has_lists = False
    for number in range(file.num_row_groups):
        group = file.row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            if column.physical_type != "BYTE_ARRAY" or not _is_of(column.path_in_schema, names):
                continue
            if _dictionary_bytes(column, source):
                paths.add(column.path_in_schema)
                has_lists = has_lists or file.schema.column(index).max_repetition_level > 0
    return sorted(paths) if has_lists else []


def rows_at_once(group: Any, source: BinaryIO, names: Collection[str], kept: Collection[str] = ()) -> int:
    """Return how many of a row group's rows may be unpacked together, so that they take bounded memory.

    A value that comes again and again is in the file once, in the column's dictionary, and unpacked each time; so no
    value is longer than its dictionary. Others are as long as in the file.

    Args:
        group: Its description.
        source: The file.
        names: Columns that are read.
        kept: Paths of those whose values stay in their dictionaries.

    Raises:
        InvalidDatasetError: A dictionary is too large.
    """
    unpacked = (column for column in columns_of(group, names) if column.path_in_schema not in kept)
    dictionaries = sum(_dictionary_bytes(column, source) for column in unpacked)
    mean_row_bytes: int = group.total_byte_size // max(group.num_rows, 1)
    most = MAX_ROWS_OF_DICTIONARIES if kept else ROWS_AT_ONCE
    return max(1, min(most, MAX_DICTIONARY_BYTES // max(dictionaries, mean_row_bytes, 1)))


def columns_of(group: Any, names: Collection[str]) -> Iterator[Any]:
    """Yield the descriptions of what a row group has of some columns."""
    for index in range(group.num_columns):
        column = group.column(index)
        if _is_of(column.path_in_schema, names):
            yield column


def _is_of(path: str, names: Collection[str]) -> bool:
    """Return whether a path leads into one of these columns, whose names may have dots."""
    return any(begin in names for begin in accumulate(path.split("."), "{}.{}".format))


def _too_many_values(where: str, num_values: int, most: int) -> InvalidDatasetError:
    return InvalidDatasetError(
        f"{where} has {num_values:,} values; at most {most:,} are taken in one, write smaller row groups, as by "
        "row_group_size=10000"
    )


def _dictionary_bytes(column: Any, source: BinaryIO) -> int:
    """Unpacked size of a column's dictionary, from the header of its first page, whatever the file's end says."""
    if not column.num_values:
        return 0
    begin = column.data_page_offset
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < begin:
        begin = column.dictionary_page_offset
    source.seek(begin)
    kind, num_bytes = _kind_and_size(source.read(_HEADER_BYTES))
    if kind != _DICTIONARY_PAGE:
        return 0
    if num_bytes > MAX_DICTIONARY_BYTES:
        raise InvalidDatasetError(
            f"the dictionary of column '{column.path_in_schema}' has {num_bytes:,} bytes; at most "
            f"{MAX_DICTIONARY_BYTES:,} are taken, write the file with use_dictionary=False or with smaller row groups"
        )
    return num_bytes


def _kind_and_size(header: bytes) -> tuple[int, int]:
    """The first two fields of a page's header (https://parquet.apache.org/docs/file-format/data-pages/)."""
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
    return numbers[0], max(numbers[1], 0)
