"""Rows of datasets as responses show them."""

from __future__ import annotations

from typing import Any

from sienn_ray.api.schemas.datasets import DatasetRow, RowMessage
from sienn_ray.datasets.row_pages import ShownRow
from sienn_ray.datasets.schema import Message
from sienn_ray.datasets.stored_rows import extra_of, message_form


def row_of(row: ShownRow) -> DatasetRow:
    """Return a row as a page of them shows it."""
    optional: dict[str, Any] = {
        "tools": row.tools,
        "label": row.label,
        "chat_template_kwargs": row.chat_template_kwargs,
    }
    if row.rejected is not None and extra_of(row.rejected):
        optional["rejected_message"] = _message(row.rejected)
    return DatasetRow(
        row=row.row,
        line=row.line,
        messages=None if row.messages is None else [_message(message) for message in row.messages],
        text=row.text,
        rejected=None if row.rejected is None else row.rejected.content,
        truncated=row.is_truncated,
        **{name: value for name, value in optional.items() if value is not None},
    )


def _message(message: Message) -> RowMessage:
    return RowMessage(**message_form(message))
