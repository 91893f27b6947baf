"""The rows that a chat template is tried with: all of a few, else some of every shape and some of every part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
# A row whose shape is new is read from its row group, of so many others.
MAX_OTHER_GROUPS = 12
# Turns that alternate have one shape, however often they do.
_REPEATED = re.compile(r"(.{1,4}?)\1+", re.DOTALL)
_MAX_SHAPES = 10_000


def sampled_rows(storage: Storage, key: str, is_over: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """Read rows of a dataset: the first ones, and behind them those of a shape that was rarely there before.

    Some row groups are read whole. Of the others, roles and what messages have beside text are read, and of those
    with turns that weren't seen yet, the rows that have them.

    Args:
        storage: Where they are.
        key: Storage key of the Parquet file.
        is_over: Says whether no more are wanted.
    """
    with pq.ParquetFile(storage.path(key), filesystem=storage.arrow_filesystem()) as file:
        names = [name for name in file.schema_arrow.names if name not in _COLUMNS_LEFT_OUT]
        groups = _chosen(file.metadata.num_row_groups)
        seen: dict[Any, int] = {}
        seen_turns: set[Any] = set()
        per_group = MAX_ROWS // max(len(groups), 1)
        for group in groups:
            num_rows = 0
            for row in _rows(file, group, names):
                if is_over():
                    return
                shape = shape_of(row)
                seen[shape] = seen.get(shape, 0) + (shape in seen or len(seen) < _MAX_SHAPES)
                if num_rows < per_group or 0 < seen[shape] <= MAX_ROWS_OF_A_SHAPE:
                    num_rows += 1
                    if len(seen_turns) < _MAX_SHAPES:
                        seen_turns.add(_turns_of(row))
                    yield row
        others = [group for group in range(file.metadata.num_row_groups) if group not in groups]
        yield from _rows_of_new_turns(file, others, names, seen_turns, is_over)


def _rows_of_new_turns(
    file: pq.ParquetFile, groups: Sequence[int], names: list[str], seen: set[Any], is_over: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """Rows of row groups whose roles, or what their messages have beside text, weren't seen yet."""
    paths = [file.schema.column(place).path for place in range(len(file.schema))]
    of_turns = [path for path in paths if path.startswith("messages.") and not path.endswith(".content")]
    num_read = 0
    for group in groups:
        new: set[int] = set()
        for place, row in enumerate(_rows(file, group, of_turns)):
            if is_over():
                return
            turns = _turns_of(row)
            if turns not in seen and len(seen) < _MAX_SHAPES:
                seen.add(turns)
                new.add(place)
        if new and num_read < MAX_OTHER_GROUPS:
            num_read += 1
            yield from (row for place, row in enumerate(_rows(file, group, names)) if place in new)


def _rows(file: pq.ParquetFile, group: int, names: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False):
        yield from batch.to_pylist()


def _chosen(num_groups: int) -> list[int]:
    if num_groups <= MAX_GROUPS:
        return list(range(num_groups))
    return sorted({round(place * (num_groups - 1) / (MAX_GROUPS - 1)) for place in range(MAX_GROUPS)})


def shape_of(row: Mapping[str, Any]) -> Any:
    """Return what a template may treat a row by: its roles, and what its messages have beside text."""
    fields = tuple(name for name, value in row.items() if value not in (None, "", []))
    return fields, _sequence([_told(message) for message in row.get("messages") or []])


def _turns_of(row: Mapping[str, Any]) -> Any:
    """The part of a row's shape that can be told without its contents."""
    return _sequence([(message["role"], _beside(message.get("extra"))) for message in row.get("messages") or []])


def _sequence(messages: Sequence[Any]) -> Any:
    """All messages in their order, with what comes several times behind itself named once."""
    letters: dict[Any, str] = {}
    order = "".join(letters.setdefault(each, chr(ord("a") + len(letters))) for each in messages)
    return tuple(letters), _REPEATED.sub(r"\1*", order)


def _told(message: Mapping[str, Any]) -> tuple[Any, ...]:
    content = message.get("content") or ""
    return str(message.get("role")), bool(content.strip()), "</think>" in content, _beside(message.get("extra"))


def _beside(extra: str | None) -> tuple[str, ...]:
    """What a message has beside role and content; several calls are another thing than one."""
    if not extra:
        return ()
    fields = json.loads(extra)
    is_several = len(fields.get("tool_calls") or ()) > 1
    return (
        *sorted(name for name in fields if name != "weight" or not fields[name]),
        *(["calls"] if is_several else []),
    )
