"""The rows that a chat template is tried with: all of a few, else some of every shape and some of every part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from sienn_ray.storage import Storage

# Row groups have up to 8 MiB; those between the first and the last are taken at equal distances.
MAX_GROUPS = 6
MAX_ROWS = 1_000
# Of one shape behind the first rows.
MAX_ROWS_OF_A_SHAPE = 3
_COLUMNS_LEFT_OUT = frozenset({"empty_columns"})
_BATCH_ROWS = 200
# A long conversation is told by how it begins and ends.
_NUM_TOLD = 4
_MAX_SHAPES = 10_000


def sampled_rows(storage: Storage, key: str) -> Iterator[dict[str, Any]]:
    """Read rows of a dataset: the first ones, and behind them those of a shape that was rarely there before.

    Args:
        storage: Where they are.
        key: Storage key of the Parquet file.
    """
    with pq.ParquetFile(storage.path(key), filesystem=storage.arrow_filesystem()) as file:
        names = [name for name in file.schema_arrow.names if name not in _COLUMNS_LEFT_OUT]
        groups = _chosen(file.metadata.num_row_groups)
        seen: dict[Any, int] = {}
        per_group = MAX_ROWS // max(len(groups), 1)
        for group in groups:
            num_rows = 0
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False):
                for row in batch.to_pylist():
                    shape = shape_of(row)
                    seen[shape] = seen.get(shape, 0) + (shape in seen or len(seen) < _MAX_SHAPES)
                    if num_rows < per_group or 0 < seen[shape] <= MAX_ROWS_OF_A_SHAPE:
                        num_rows += 1
                        yield row


def _chosen(num_groups: int) -> list[int]:
    if num_groups <= MAX_GROUPS:
        return list(range(num_groups))
    return sorted({round(place * (num_groups - 1) / (MAX_GROUPS - 1)) for place in range(MAX_GROUPS)})


def shape_of(row: Mapping[str, Any]) -> Any:
    """Return what a template may treat a row by: its roles, and what its messages have beside text."""
    fields = tuple(name for name, value in row.items() if value not in (None, "", []))
    messages = [_told(message) for message in row.get("messages") or []]
    if len(messages) <= 2 * _NUM_TOLD:
        return fields, tuple(messages)
    return fields, tuple(messages[:_NUM_TOLD]), frozenset(messages), tuple(messages[-_NUM_TOLD:])


def _told(message: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(message.get("role")), *(name for name, value in message.items() if value not in (None, "", [], 1)))
