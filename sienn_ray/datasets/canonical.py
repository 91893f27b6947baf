"""Conversion of a row as a user's file has it to the one that is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat
from sienn_ray.datasets.shapes.findings import Findings
from sienn_ray.datasets.shapes.reader import RowReader
from sienn_ray.datasets.shapes.table import documented_columns


def canonical_row(dataset_format: DatasetFormat, raw_row: Mapping[str, Any]) -> CanonicalRow:
    """Check one row of a known format, and bring it into its stored form.

    Args:
        dataset_format: The format, whose columns are those that the documentation names first.
        raw_row: Values by column. Names match exactly, but for case and for white space at either end.

    Raises:
        InvalidDatasetError: The row is not what its format asks for. The error bears no line; the caller knows it.

    Example:
        >>> row = canonical_row(DatasetFormat.QUESTION_ANSWER, {"Question": "Why?", "Answer": "So."})
        >>> [(message.role.value, message.content) for message in row.messages]
        [('user', 'Why?'), ('assistant', 'So.')]
    """
    reader = RowReader({}, Findings(_ignore))
    reader.begin(dict.fromkeys(documented_columns(dataset_format), True))
    return reader.read(raw_row, 1)


def _ignore(_column: str) -> None:
    """Nobody is told of columns that nothing is read from."""
