"""Rows of datasets as responses show them."""

from __future__ import annotations

from sienn_ray.api.schemas.datasets import DatasetRow, RowMessage
from sienn_ray.datasets.row_pages import ShownRow


def row_of(row: ShownRow) -> DatasetRow:
    """Return a row as a page of them shows it."""
    messages = row.messages and [RowMessage(role=message.role, content=message.content) for message in row.messages]
    return DatasetRow(
        row=row.row,
        line=row.line,
        messages=messages,
        text=row.text,
        rejected=row.rejected,
        truncated=row.is_truncated,
    )
