"""Files as streams, and what becomes of their rows."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets.ingest import IngestReport, ingest
from sienn_ray.errors import InvalidDatasetError


class ByteByByte(io.BytesIO):
    """A source whose reads come back short."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1))


def run(content: bytes | str, filename: str, **options: Any) -> tuple[IngestReport, list[dict[str, Any]]]:
    sink = io.BytesIO()
    source = io.BytesIO(content.encode() if isinstance(content, str) else content)
    report = ingest(source, filename, sink, **options)
    return report, stored(sink)


def stored(sink: io.BytesIO) -> list[dict[str, Any]]:
    """Rows of a Parquet file, without what only conversations of other kinds than plain ones have."""
    rows: list[dict[str, Any]] = pq.read_table(sink).to_pylist()
    for row in rows:
        for message in row["messages"] or ():
            _drop_null(message, "extra")
        _drop_null(row, "rejected_extra", "tools", "label", "chat_template_kwargs")
    return rows


def _drop_null(values: dict[str, Any], *names: str) -> None:
    for name in names:
        if values[name] is None:
            del values[name]


def turn(row: int, line: int, prompt: str, completion: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return {"row": row, "line": line, "messages": messages, "text": None, "empty_columns": [], "rejected": None}


def fault(content: bytes | str, filename: str, **options: Any) -> InvalidDatasetError:
    with pytest.raises(InvalidDatasetError) as error:
        run(content, filename, **options)
    return error.value
