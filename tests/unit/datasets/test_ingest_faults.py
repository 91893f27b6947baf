"""What is wrong with a file is told with its place."""

from __future__ import annotations

import gzip
import io
import json

import ijson
import pytest

from sienn_ray.datasets.ingest import ingest
from sienn_ray.datasets.utf8 import CHUNK_BYTES
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.ingesting import ByteByByte, fault, run


def test_fault_of_a_preference_row_has_its_line() -> None:
    error = fault("prompt,chosen,rejected\na,b,c\na,b,b\na,b,\n", "d.csv")
    assert error.message.startswith("line 3: columns 'chosen' and 'rejected' hold the same answer")
    assert "line 4: column 'rejected' must not be blank" in error.message


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        (
            "d.xlsx",
            "the extension '.xlsx' is not accepted; use one of .csv, .json, .jsonl, .ndjson, .parquet, .tsv, .txt",
        ),
        ("d.csv.zip", "the extension '.zip' is not accepted"),
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
        (
            "text".encode("utf-16-le"),
            "line 1: the content is UTF-16 without a byte order mark; give encoding=utf-16-le",
        ),
        (b"PK\x03\x04rest", "line 1: the content is a ZIP archive (or an Excel workbook); unpack it, or save the data"),
        (
            gzip.compress(gzip.compress(b"x", mtime=0), mtime=0),
            "line 1: the content is a gzip file within another packed file; unpack it",
        ),
        (b"PAR1\x15\x04", "the Parquet file can't be read"),
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
    assert error.value.message.startswith(f"line {line}: " + reason.format(len(good) + 3))
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
        ("\ntext,,\nc,d,e\n", "line 3: 'd' stands in a column without a name; name it in the header, or remove it"),
        ("prompt,completion\na,b\nc\n", "line 3: the row has 1 fields, but the header has 2 columns"),
        ('prompt,completion\n"a\n\n",b\nc,d,e\n', "line 5: the row has 3 fields, but the header has 2 columns"),
        ("prompt,completion\na,b\nc, \n", "line 3: column 'completion' must not be blank"),
        ('prompt,completion\n\n"a\nb",""\n', "line 3: column 'completion' must not be blank"),
        ('text\n""\n', "line 2: column 'text' must not be blank"),
        ('text\nx\n"a\nb\nc', "line 3: broken CSV: a quote opened in this row is never closed"),
        ('text\n"a"b\n', "line 2: broken CSV: ',' expected after '\"'"),
        ("text\na\rb\n", "line 2: broken CSV: a carriage return stands alone"),
        ("messages\n[]\n", "line 2: column 'messages' must have at least one user and one assistant message, got none"),
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
        ('{"text": "x"}\n{"text": "x"} {"text": "x"}', "line 2: invalid JSON at column 15: Extra data"),
        ('[{"text": "x"}]\n[]', "line 1: each line must be a JSON object, got a list; name what it is, as in"),
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
