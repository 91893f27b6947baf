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
    return report, pq.read_table(sink).to_pylist()


def turn(row: int, line: int, prompt: str, completion: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return {"row": row, "line": line, "messages": messages, "text": None, "empty_columns": [], "rejected": None}


def fault(content: bytes | str, filename: str, **options: Any) -> InvalidDatasetError:
    with pytest.raises(InvalidDatasetError) as error:
        run(content, filename, **options)
    return error.value
