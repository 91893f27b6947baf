"""Rows come from files of every kind, and what is noted of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets.ingest import IngestReport, ingest
from sienn_ray.datasets.row_writer import MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_ROWS
from sienn_ray.datasets.schema import PARQUET_SCHEMA, DatasetFormat
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.ingesting import ByteByByte, run, stored, turn

ROWS = [{"instruction": "a", "response": "b"}, {"instruction": 'say "c", d', "response": "line 1\nline 2"}]


@pytest.mark.parametrize(
    ("filename", "content", "lines"),
    [
        ("d.csv", 'instruction,response\na,b\n"say ""c"", d","line 1\nline 2"\n', (2, 3)),
        ("D.CSV", '\ufeffinstruction,response\r\n\r\na,b\r\n\r\n"say ""c"", d","line 1\nline 2"', (3, 5)),
        ("d.json", json.dumps(ROWS), (1, 2)),
        ("d.Json", "\ufeff" + json.dumps(ROWS, indent=4) + "\n \n", (1, 2)),
        ("d.jsonl", "\n".join(json.dumps(row) for row in ROWS), (1, 2)),
        ("a/b.c/d.JSONL", "\ufeff\n" + "\r\n \t\r\n".join(json.dumps(row) for row in ROWS) + "\r\n", (2, 4)),
    ],
)
@pytest.mark.parametrize("stream", [io.BytesIO, ByteByByte])
def test_same_rows_come_from_every_kind_of_file(
    stream: type[io.BytesIO], filename: str, content: str, lines: tuple[int, int]
) -> None:
    sink = io.BytesIO()
    report = ingest(stream(content.encode()), filename, sink)
    assert stored(sink) == [
        turn(0, lines[0], "a", "b"),
        turn(1, lines[1], 'say "c", d', "line 1\nline 2"),
    ]
    assert report == IngestReport(DatasetFormat.INSTRUCTION_RESPONSE, ("instruction", "response"), 2, ROWS)


def test_text_and_chat_rows() -> None:
    _, rows = run("text\nonce\n", "d.csv")
    assert rows == [{"row": 0, "line": 2, "messages": None, "text": "once", "empty_columns": [], "rejected": None}]
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    report, rows = run(json.dumps([{"id": 1, "messages": messages}]), "d.json")
    assert rows == [{"row": 0, "line": 1, "messages": messages, "text": None, "empty_columns": [], "rejected": None}]
    assert (report.format, report.columns) == (DatasetFormat.CHAT, ("id", "messages"))


PREFERENCE = {"prompt": "a", "chosen": "b", "rejected": "c"}


AS_MESSAGES = {
    name: [{"role": "user" if name == "prompt" else "assistant", "content": content}]
    for name, content in PREFERENCE.items()
}


@pytest.mark.parametrize(
    ("filename", "content", "line"),
    [
        ("d.csv", "prompt,chosen,rejected\na,b,c\n", 2),
        ("d.json", json.dumps([PREFERENCE]), 1),
        ("d.jsonl", json.dumps(PREFERENCE), 1),
        ("d.json", json.dumps([AS_MESSAGES]), 1),
        ("d.jsonl", json.dumps(AS_MESSAGES), 1),
    ],
)
def test_preference_rows_come_from_every_kind_of_file(filename: str, content: str, line: int) -> None:
    report, rows = run(content, filename)
    assert rows == [{**turn(0, line, "a", "b"), "rejected": "c"}]
    assert (report.format, report.columns) == (DatasetFormat.PREFERENCE, ("prompt", "chosen", "rejected"))
    assert report.preview == [AS_MESSAGES if "role" in content else PREFERENCE]


def test_input_of_a_later_row_is_kept() -> None:
    _, rows = run('{"instruction":"a","response":"b"}\n{"instruction":"a","input":"c","response":"b"}', "d.jsonl")
    assert rows[1] == turn(1, 2, "a\n\nc", "b")


def test_parquet_has_the_schema_and_bounded_row_groups() -> None:
    sink = io.BytesIO()
    num_rows = MAX_ROW_GROUP_ROWS * 2 + 500
    ingest(io.BytesIO(b"text\n" + b"x\n" * num_rows), "d.csv", sink)
    parquet = pq.ParquetFile(sink)
    assert parquet.schema_arrow.equals(PARQUET_SCHEMA)
    sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.metadata.num_row_groups)]
    assert sizes == [MAX_ROW_GROUP_ROWS, MAX_ROW_GROUP_ROWS, 500]
    assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
    assert pq.read_table(sink)["row"].to_pylist() == list(range(num_rows))


@pytest.mark.parametrize(("header", "start"), [(b"text", b""), (b"prompt,chosen,rejected", b"a,b,")])
def test_long_rows_end_a_row_group_early(header: bytes, start: bytes) -> None:
    sink = io.BytesIO()
    num_bytes = MAX_ROW_GROUP_BYTES // 4
    ingest(io.BytesIO(header + b"\n" + (start + b"x" * num_bytes + b"\n") * 6), "d.csv", sink)
    metadata = pq.ParquetFile(sink).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [4, 2]


def test_sink_may_be_a_pyarrow_stream(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "d.parquet"), "wb") as sink:
        ingest(io.BytesIO(b"text\nx\n"), "d.csv", sink)
    assert pq.read_metadata(tmp_path / "d.parquet").num_rows == 1


def test_neither_source_nor_sink_is_closed() -> None:
    source, sink = io.BytesIO(b"text\nx\n\n,\n"), io.BytesIO()
    with pytest.raises(InvalidDatasetError):
        ingest(source, "d.csv", sink)
    assert not source.closed
    assert not sink.closed


def test_preview_is_cut() -> None:
    content = "".join(json.dumps({"text": "é" * 501, "n": index, "deep": [["x" * 600]]}) + "\n" for index in range(4))
    report, _ = run(content, "d.jsonl", preview_rows=3)
    assert report.preview == [{"text": "é" * 500 + "…", "n": n, "deep": [["x" * 500 + "…"]]} for n in range(3)]
    assert report.num_rows == 4
    assert run(content, "d.jsonl", preview_rows=0)[0].preview == []


def test_preview_can_always_be_sent_as_json() -> None:
    deep = "[" * 30 + "]" * 30
    content = (
        '{"text":"a","\\ud800":"\\udfff","nul":"\\u0000","deep":' + deep + ',"many":' + json.dumps([0] * 999) + "}"
    )
    report, _ = run(content, "d.jsonl")
    json.dumps([report.columns, report.preview], ensure_ascii=False, allow_nan=False).encode()
    assert "\0" not in str(report.preview)
    assert len(report.preview[0]["many"]) == 100


def test_rows_behind_a_bad_one_are_read_but_no_longer_written() -> None:
    sink = io.BytesIO()
    with pytest.raises(InvalidDatasetError, match=r"^line 3: the row has 2 fields"):
        ingest(io.BytesIO(b"text\nx\n,\n" + b"x\n" * 50_000), "d.csv", sink)
    assert pq.read_metadata(sink).num_rows == 0


def test_failure_of_the_sink_is_not_the_datasets_fault() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        ingest(io.BytesIO(b"text\nx\n"), "d.csv", Full())


@pytest.mark.parametrize(
    ("filename", "content", "expected"),
    [
        ("d.csv", "id,prompt,completion\n,a,b\n  ,a,b\n1,a,b\n", [[0], [0], []]),
        (
            "d.jsonl",
            '{"instruction": "a", "input": "", "response": "b", "n": null}\n'
            '{"instruction": "a", "response": "b", "N ": 0}\n'
            '{"response": "b", "instruction": "a", "input": "c", "n": [], "extra": ""}\n',
            [[1, 3], [1], []],
        ),
        ("d.json", '[{"text": "a", "n": {}}, {"text": "b", "n": false}, {"text": "c"}]', [[], [], [1]]),
    ],
)
def test_columns_with_nothing_in_them_are_noted(filename: str, content: str, expected: list[list[int]]) -> None:
    report, rows = run(content, filename)
    assert [row["empty_columns"] for row in rows] == expected
    assert all(index < len(report.columns) for row in rows for index in row["empty_columns"])


def test_only_columns_that_the_report_names_are_noted() -> None:
    names = ["text", *(f"column{number}" for number in range(1_000))]
    report, rows = run(",".join(names) + "\na" + "," * 1_000 + "\n", "d.csv")
    assert rows[0]["empty_columns"] == list(range(1, 100))
    assert len(report.columns) == 100
