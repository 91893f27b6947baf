"""Text in other encodings than UTF-8: told by its mark, or given."""

from __future__ import annotations

import io

import pytest

from sienn_ray.datasets.ingest import ingest
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.text_encodings import ENCODINGS
from sienn_ray.datasets.utf8 import CHUNK_BYTES
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.ingesting import ByteByByte, fault, run, turn

TABLE = "instruction,response\nOù?,À six heures.\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("filename", ["d.csv", "d.txt", "d.csv.txt"])
def test_byte_order_mark_tells_the_encoding(encoding: str, filename: str) -> None:
    report, rows = run(TABLE.encode(encoding), filename)
    assert rows == [turn(0, 2, "Où?", "À six heures.")]
    assert report.guessed["encoding"] == encoding


def test_big_endian_text_of_excel_is_read() -> None:
    content = TABLE.replace(",", "\t").encode("utf-16-be")
    report, rows = run(b"\xfe\xff" + content, "d.txt")
    assert rows == [turn(0, 2, "Où?", "À six heures.")]
    assert report.guessed == {"encoding": "utf-16", "container": "CSV", "separator": "\t"}


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name not in ("koi8-r", "windows-1251")])
def test_every_encoding_can_be_given(encoding: str) -> None:
    content = "instruction,response\na,b\n".encode(ENCODINGS[encoding])
    report, rows = run(content, "d.csv", options=ReadingOptions(encoding=encoding))
    assert (rows, report.guessed) == ([turn(0, 2, "a", "b")], {})


@pytest.mark.parametrize(
    ("encoding", "answer"),
    [("windows-1252", "„Größe“ 5 €"), ("windows-1251", "Привет"), ("shift-jis", "六時です"), ("macintosh", "café…")],
)
def test_given_encoding_is_used(encoding: str, answer: str) -> None:
    content = f"instruction,response\na,{answer}\n".encode(ENCODINGS[encoding])
    assert run(content, "d.csv", options=ReadingOptions(encoding=encoding))[1] == [turn(0, 2, "a", answer)]


def test_way_out_of_a_byte_that_is_not_utf8_leads_to_success() -> None:
    content = TABLE.encode("windows-1252")
    assert "as in encoding=windows-1252" in fault(content, "d.csv").message
    rows = run(content, "d.csv", options=ReadingOptions(encoding="windows-1252"))[1]
    assert rows == [turn(0, 2, "Où?", "À six heures.")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_way_out_of_utf16_without_a_mark_leads_to_success(encoding: str) -> None:
    content = TABLE.encode(encoding)
    assert f"UTF-16 without a byte order mark; give encoding={encoding}" in fault(content, "d.csv").message
    assert run(content, "d.csv", options=ReadingOptions(encoding=encoding))[0].num_rows == 1


@pytest.mark.parametrize("stream", [io.BytesIO, ByteByByte])
@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "windows-1252"])
def test_characters_across_chunks_stay_whole(stream: type[io.BytesIO], encoding: str) -> None:
    text = "é" * (2 * CHUNK_BYTES if stream is io.BytesIO else 50)
    content = f"text\n{text}\n".encode(ENCODINGS[encoding])
    report = ingest(stream(content), "d.csv", io.BytesIO(), options=ReadingOptions(encoding=encoding))
    assert report.preview[0]["text"].startswith("ééé")


def test_byte_that_the_encoding_lacks_has_its_line() -> None:
    content = b"text\na\n" + b"b\n" * CHUNK_BYTES + b"c\x81\n"
    error = fault(content, "d.csv", options=ReadingOptions(encoding="windows-1252"))
    assert error.line == CHUNK_BYTES + 3
    assert f"byte 0x81 at offset {len(content) - 2} is not windows-1252; give the encoding" in error.message


def test_half_a_character_at_the_end_is_a_fault() -> None:
    content = "text\nab\n".encode("utf-16")[:-1]
    assert "is not utf-16" in fault(content, "d.csv").message


def test_utf8_that_is_called_something_else_is_refused() -> None:
    content = "\ufefftext\na\n".encode()
    with pytest.raises(InvalidDatasetError, match="begins with the byte order mark of UTF-8, so it isn't windows-1252"):
        run(content, "d.csv", options=ReadingOptions(encoding="windows-1252"))
    assert run(content, "d.csv", options=ReadingOptions(encoding="utf-8"))[0].num_rows == 1


def test_nul_is_no_text_in_any_encoding() -> None:
    assert "byte 0x00" in fault(b"text\na\0b\n", "d.csv", options=ReadingOptions(encoding="windows-1252")).message
