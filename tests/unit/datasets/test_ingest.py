from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

import ijson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets.ingest import IngestReport, ingest, inspect
from sienn_ray.datasets.row_writer import MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_ROWS
from sienn_ray.datasets.schema import PARQUET_SCHEMA, DatasetFormat
from sienn_ray.datasets.utf8 import CHUNK_BYTES
from sienn_ray.errors import InvalidDatasetError


class Stream:
    """A source that makes its bytes as they are read, counts them, and has no method but `read`."""

    def __init__(self, head: bytes, filler: bytes, num_bytes: int) -> None:
        self.head = head
        self.filler = filler
        self.num_bytes = len(head) + num_bytes
        self.num_read = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "reads must be bounded"
        size = min(size, self.num_bytes - self.num_read)
        data, self.head = self.head[:size], self.head[size:]
        if not data:
            data = (self.filler * (size // len(self.filler) + 1))[:size]
            turn = size % len(self.filler)
            self.filler = self.filler[turn:] + self.filler[:turn]
        self.num_read += len(data)
        return data


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
    assert pq.read_table(sink).to_pylist() == [
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


def test_fault_of_a_preference_row_has_its_line() -> None:
    error = fault("prompt,chosen,rejected\na,b,c\na,b,b\na,b,\n", "d.csv")
    assert error.message.startswith("line 3: columns 'chosen' and 'rejected' hold the same answer")
    assert "line 4: column 'rejected' must not be blank" in error.message


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


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("d.txt", "the extension '.txt' is not accepted; use one of .csv, .json, .jsonl"),
        ("d.csv.gz", "the extension '.gz' is not accepted"),
        ("csv", "a file without an extension is not accepted"),
        ("", "a file without an extension"),
        ("d." + "x" * 10_000, "the extension '.xxx"),
    ],
)
def test_extension_must_be_known(filename: str, message: str) -> None:
    error = fault("text\nx\n", filename)
    assert error.message.startswith(message)
    assert len(error.message) < 200


GOOD_ROW = {".csv": b"text\nx\n", ".json": b'[{"text": "x"},\n', ".jsonl": b'{"text": "x"}\n'}


@pytest.mark.parametrize("extension", GOOD_ROW)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\nx\n".encode("utf-16"), "line 1: the content is UTF-16 text"),
        (b"\xfe\xff\0t", "line 1: the content is UTF-16 text"),
        ("text".encode("utf-16-le"), "line 1: byte 0x00 at offset 1 is not text, perhaps UTF-16; save the file as"),
        (b"PK\x03\x04rest", "line 1: the content is a ZIP archive (or an Excel workbook); save the data as CSV"),
        (gzip.compress(b"text\nx\n", mtime=0), "line 1: the content is a gzip file"),
        (b"PAR1\x15\x04", "line 1: the content is a Parquet file"),
        (b"", "the file is empty"),
    ],
)
def test_other_content_is_told(extension: str, content: bytes, message: str) -> None:
    assert fault(content, f"d{extension}").message.startswith(message)


@pytest.mark.parametrize("extension", GOOD_ROW)
@pytest.mark.parametrize("stream", [io.BytesIO, ByteByByte])
@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"caf\xe9,1\n", "byte 0xe9 at offset {} is not UTF-8; save the file as UTF-8"),
        (b"caf\xc3", "byte 0xc3 at offset {} is not UTF-8; save the file as UTF-8"),
        (b"caf\0", "byte 0x00 at offset {} is not text, perhaps UTF-16; save the file as UTF-8"),
        (b"caf\xed\xa0\x80", "byte 0xed at offset {} is not UTF-8; save the file as UTF-8"),
    ],
)
def test_bad_byte_is_placed(extension: str, stream: type[io.BytesIO], tail: bytes, reason: str) -> None:
    # A quote keeps the JSON array's own parser from finding fault before the byte is read.
    good = b"\xef\xbb\xbf" + GOOD_ROW[extension] + (b'{"' if extension == ".json" else b"")
    line = good.count(b"\n") + 1
    with pytest.raises(InvalidDatasetError) as error:
        ingest(stream(good + tail), f"d{extension}", io.BytesIO())
    # Byte by byte, JSONL has its broken line only once it ends, so the byte is found first everywhere.
    assert error.value.message == f"line {line}: " + reason.format(len(good) + 3)
    assert error.value.line == line


@pytest.mark.parametrize("where", range(CHUNK_BYTES - 5, CHUNK_BYTES + 2))
def test_characters_across_chunks_stay_whole(where: int) -> None:
    text = "x" * where + "🦙é\n日本"
    for filename, content in (
        ("d.csv", f'text\n"{text}"\n'),
        ("d.jsonl", json.dumps({"text": text}, ensure_ascii=False)),
        ("d.json", json.dumps([{"text": text}], ensure_ascii=False)),
    ):
        assert run(content, filename)[1][0]["text"] == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\ufeff", "the file is empty; the first row must name the columns"),
        ("\n\r\n", "the file is empty; the first row must name the columns"),
        ("prompt,completion", "the file has no rows; at least one is needed"),
        ("prompt,completion\n\n", "the file has no rows; at least one is needed"),
        ("a,b\nc,d\n", "unknown columns: found 'a', 'b'; accepted"),
        ("text,TEXT \nc,d\n", "line 1: the header has the column 'TEXT ' more than once"),
        ("\ntext,,\nc,d,e\n", "line 2: the header has the column '' more than once"),
        ("prompt,completion\na,b\nc\n", "line 3: the row has 1 fields, but the header has 2 columns"),
        ('prompt,completion\n"a\n\n",b\nc,d,e\n', "line 5: the row has 3 fields, but the header has 2 columns"),
        ("prompt,completion\na,b\n  \n", "line 3: the row has 1 fields"),
        ("prompt,completion\na,b\nc, \n", "line 3: column 'completion' must not be blank"),
        ('prompt,completion\n\n"a\nb",""\n', "line 3: column 'completion' must not be blank"),
        ('text\n""\n', "line 2: column 'text' must not be blank"),
        ('text\nx\n"a\nb\nc', "line 3: broken CSV: a quote opened in this row is never closed"),
        ('text\n"a"b\n', "line 2: broken CSV: ',' expected after '\"'"),
        ("text\ra\rb\r", "line 1: broken CSV: a carriage return stands alone"),
        ("messages\n[]\n", "line 2: column 'messages' must be a list of {role, content} objects, got a string"),
    ],
)
def test_broken_csv(content: str, message: str) -> None:
    assert fault(content, "d.csv").message.startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "the file has no rows"),
        ('{"text": "x"}\n{"text": }\n', "line 2: invalid JSON at column 10: Expecting value; each line must be one"),
        ('{"text": "x"}\n\n{"text": "x"', "line 3: invalid JSON at column 1"),
        ('{"text": "x"} {"text": "x"}', "line 1: invalid JSON at column 15: Extra data"),
        ('{\n"text": "x"\n}', "line 1: invalid JSON at column 2"),
        ('[{"text": "x"}]', "line 1: each line must be a JSON object, got a list; a file that is one array must"),
        ('{"text": "x"}\n"x"', "line 2: each line must be a JSON object, got a string"),
        ("null", "line 1: each line must be a JSON object, got null"),
        ("{}", "unknown columns: found none"),
        ('{"text": "x"}\n{"text": NaN}', "line 2: NaN is not JSON"),
        ('{"text": "x", "n": -Infinity}', "line 1: -Infinity is not JSON"),
        ('{"text": "x", "n": 1e999}', "line 1: the number '1e999' is out of range"),
        ('{"text": "x", "n": ' + "1" * 5_000 + "}", "line 1: a number has too many digits"),
        ('{"text": "x", "n": 1, "text": "y"}', "line 1: the key 'text' comes more than once"),
        ('{"text": "x"}\n{"text": "x", "n": [{"a": 1, "a": 1}]}', "line 2: the key 'a' comes more than once"),
        ('{"text": "x"}\n{"text": ' + "[" * 100_000, "line 2: nested deeper than 32 levels"),
        ('{"text": "x", "n": ' + "[" * 32 + "]" * 32 + "}", "line 1: nested deeper than 32 levels"),
        ('{"text": "x"}\n{"txt": "x"}', "line 2: column 'text' is missing; the row has 'txt'"),
        ('{"text": "x"}\n{"text": 5}', "line 2: column 'text' must be a string, got a number"),
        ('{"text": "\\ud83e"}', "line 1: column 'text' has half of a surrogate pair"),
        ('{"text": "x\ty"}', "line 1: invalid JSON at column 12: Invalid control character"),
    ],
)
def test_broken_jsonl(content: str, message: str) -> None:
    assert fault(content, "d.jsonl").message.startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (" \n", "before the first row: the JSON ends before the array is closed"),
        ("[", "before the first row: the JSON ends before the array is closed; was the file cut short?"),
        ('[{"text": "x"}', "after row 1: the JSON ends before the array is closed"),
        ('[{"text": "x"}, {"text": "x', "row 2: the JSON ends before the array is closed"),
        ("[]", "the file has no rows"),
        ("[{}]", "unknown columns: found none"),
        ('{"rows": [{"text": "x"}]}', "the file must be an array of objects, got an object; put the rows in [...]"),
        ('{"text": "x"}\n{"text": "x"}', "the file must be an array of objects, got an object; put the rows in [...]"),
        ('"x"', "the file must be an array of objects, got a string"),
        ("3", "the file must be an array of objects, got a number"),
        ('[{"text": "x"}, "x"]', "row 2: must be an object, got a string"),
        ('[{"text": "x"}, [{"text": "x"}]]', "row 2: must be an object, got a list"),
        ("[null]", "row 1: must be an object, got null"),
        ('[{"text": "x"}] x', "after row 1: invalid JSON"),
        ('[{"text": "x"}]\n[{"text": "x"}]', "after row 1: invalid JSON"),
        ('[{"text": "x"},]', "after row 1: invalid JSON"),
        ('[{"text": "x"} {"text": "x"}]', "after row 1: invalid JSON"),
        ('[{"text": "x"}, {"text": NaN}]', "row 2: invalid JSON"),
        ('[{"text": "x", "n": 1e999}]', "row 1: "),
        ('[{"text": "x", "n": 1e99999999999999999999999}]', "row 1: "),
        ('[{"text": "x", "n": ' + "1" * 5_000 + "}]", "row 1: "),
        ("['text']", "before the first row: invalid JSON"),
        ('[{"text": "x\ty"}]', "row 1: invalid JSON"),
        ('[{"text": "x"}, {"text": "y", "text": "z"}]', "row 2: the key 'text' comes more than once"),
        ('[{"text": "x", "n": [{"a": 1, "a": 1}]}]', "row 1: the key 'a' comes more than once"),
        ('[{"text": "x", "n": ' + "[" * 32 + "]" * 32 + "}]", "row 1: nested deeper than 32 levels"),
        ('[{"text": ' + "[" * 100_000, "row 1: nested deeper than 32 levels"),
        ('[{"text": "x"}, {"txt": "x"}]', "row 2: column 'text' is missing; the row has 'txt'"),
        ('[{"text": "x"}, {"text": true}]', "row 2: column 'text' must be a string, got a boolean"),
        ('[{"text": "x"}, {"text": " "}]', "row 2: column 'text' must not be blank"),
    ],
)
@pytest.mark.parametrize("backend", ["yajl2_c", "python"])
def test_broken_json_array(monkeypatch: pytest.MonkeyPatch, backend: str, content: str, message: str) -> None:
    parse = pytest.importorskip(f"ijson.backends.{backend}").basic_parse
    monkeypatch.setattr(ijson, "basic_parse", parse)
    assert fault(content, "d.json").message.startswith(message)


@pytest.mark.parametrize("filename", ["d.json", "d.jsonl"])
def test_nesting_and_numbers_of_extra_columns_are_accepted(filename: str) -> None:
    row = '{"text": "x", "deep": ' + "[" * 31 + "]" * 31 + ', "int": 9007199254740993, "float": 0.5, "none": null}'
    report, _ = run(f"[{row}]" if filename == "d.json" else row, filename)
    preview = report.preview[0]
    assert (preview["int"], preview["float"], preview["none"]) == (9007199254740993, 0.5, None)


@pytest.mark.parametrize(
    ("filename", "head", "message"),
    [
        ("d.csv", b"text\nx\n", "line 3: the line is longer than 1,000,000 bytes"),
        ("d.csv", b'text\nx\n"', "line 3: the line is longer than 1,000,000 bytes"),
        ("d.jsonl", b'{"text": "x"}\n{"text": "', "line 2: the line is longer than 1,000,000 bytes"),
        ("d.json", b'[{"text": "x"}, {"text": "', "row 2: longer than 1,000,000 bytes"),
    ],
)
def test_long_row_is_refused_before_it_is_read(filename: str, head: bytes, message: str) -> None:
    source = Stream(head, b"x", num_bytes=50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidDatasetError, match=f"^{message}"):
            ingest(cast(BinaryIO, source), filename, io.BytesIO(), max_row_bytes=1_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.num_read < 1_000_000 + 3 * CHUNK_BYTES
    assert peak_bytes < 6_000_000


@pytest.mark.parametrize(
    ("filename", "head", "filler", "message"),
    [
        ("d.csv", b'text\n"open', b"x\n", "line 2: the row that begins here is longer than 100,000 bytes; is a quote"),
        ("d.csv", b"text,b\n" + b'"\n",' * 9, b'"\n",', "line 2: the row that begins here is longer than 100,000"),
        ("d.json", b'[{"text": "x", "n": [0', b",0", "row 1: longer than 100,000 bytes"),
        ("d.json", b"[", b" ", "row 1: longer than 100,000 bytes"),
    ],
)
def test_row_that_never_ends_is_refused(filename: str, head: bytes, filler: bytes, message: str) -> None:
    source = Stream(head, filler, num_bytes=50_000_000)
    with pytest.raises(InvalidDatasetError, match=f"^{message}"):
        ingest(cast(BinaryIO, source), filename, io.BytesIO(), max_row_bytes=100_000)
    assert source.num_read < 100_000 + 3 * CHUNK_BYTES


@pytest.mark.parametrize(
    ("filename", "head", "filler"),
    [
        ("d.csv", b"text\n", b"x" * 999 + b"\n"),
        ("d.jsonl", b"", b'{"text": "' + b"x" * 987 + b'"}\n'),
        ("d.json", b"[", b'{"text": "' + b"x" * 987 + b'"},'),
    ],
)
def test_memory_does_not_grow_with_the_file(filename: str, head: bytes, filler: bytes) -> None:
    source = Stream(head, filler, num_bytes=30_000_000)
    expected: AbstractContextManager[object]
    # The array is never closed, which is known only at its end.
    expected = pytest.raises(InvalidDatasetError, match="ends before") if filename == "d.json" else nullcontext()
    tracemalloc.start()
    try:
        with expected:
            ingest(cast(BinaryIO, source), filename, io.BytesIO())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.num_read == source.num_bytes
    assert peak_bytes < 12_000_000


def test_row_of_just_the_limit_is_accepted() -> None:
    assert run(b"text\n" + b"x" * 1_000, "d.csv", max_row_bytes=1_000)[0].num_rows == 1
    assert run(b'text\n"' + b"x\n" * 499 + b'"\n', "d.csv", max_row_bytes=1_000)[0].num_rows == 1
    assert fault(b"text\n" + b"x" * 1_001, "d.csv", max_row_bytes=1_000).line == 2
    assert fault("text\n" + "é" * 501, "d.csv", max_row_bytes=1_000).line == 2


def test_field_over_the_default_limit_of_csv_is_accepted_and_limit_is_never_lowered() -> None:
    text = "x" * 1_000_000
    assert run(f"text\n{text}\n", "d.csv")[1][0]["text"] == text
    before = csv.field_size_limit()
    run("text\nx\n", "d.csv", max_row_bytes=1_000)
    assert csv.field_size_limit() == before


def test_many_distinct_keys_before_a_repeated_one_take_no_quadratic_time() -> None:
    keys = ",".join(f'"{index}":0' for index in range(200_000))
    assert "the key 'z' comes" in fault("{" + keys + ',"z":0,"z":0}', "d.jsonl").message


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


@pytest.mark.parametrize(
    ("filename", "head", "row", "tail"),
    [
        ("d.csv", b"text" + b"".join(b",c%d" % n for n in range(20_000)) + b"\n", b"x" + b",ab" * 20_000 + b"\n", b""),
        ("d.jsonl", b"", b'{"text": "x", "n": [' + b"[]," * 60_000 + b"[]]}\n", b""),
        ("d.json", b"[", b'{"text": "x", "n": [' + b"[]," * 60_000 + b"[]]},", b'{"text": "x"}]'),
    ],
)
def test_only_one_row_is_held_at_a_time(filename: str, head: bytes, row: bytes, tail: bytes) -> None:
    def peak_bytes(num_rows: int) -> int:
        tracemalloc.start()
        try:
            inspect(io.BytesIO(head + row * num_rows + tail), filename, preview_rows=0)
            return tracemalloc.get_traced_memory()[1] - len(row) * num_rows
        finally:
            tracemalloc.stop()

    assert peak_bytes(4) < 1.4 * peak_bytes(1)
