"""Packed files are unpacked piece by piece, and not beyond all measure."""

from __future__ import annotations

import gzip
import io
import os

import pyarrow as pa
import pytest

from sienn_ray.datasets.files import unpacked
from sienn_ray.datasets.ingest import ingest
from tests.unit.datasets.ingesting import ByteByByte, fault, run, turn

TABLE = b"instruction,response\na,b\n"


def pack(content: bytes, codec: str) -> bytes:
    return gzip.compress(content) if codec == "gzip" else bytes(pa.Codec("zstd").compress(content, asbytes=True))


@pytest.mark.parametrize(
    ("filename", "codec", "content"),
    [
        ("d.csv.gz", "gzip", TABLE),
        ("D.CSV.GZ", "gzip", TABLE),
        ("d.tsv.gzip", "gzip", TABLE.replace(b",", b"\t")),
        ("d.csv.zst", "zstd", TABLE),
        ("d.jsonl.zst", "zstd", b'{"instruction": "a", "response": "b"}'),
        ("d.json.zstd", "zstd", b'[{"instruction": "a", "response": "b"}]'),
        ("train.gz", "gzip", b'{"instruction": "a", "response": "b"}'),
        ("d.csv.gz.txt", "gzip", TABLE),
    ],
)
def test_packed_files_are_read(filename: str, codec: str, content: bytes) -> None:
    report, rows = run(pack(content, codec), filename)
    assert rows[0]["messages"] == turn(0, 0, "a", "b")["messages"]
    assert "compression" not in report.guessed


@pytest.mark.parametrize(("codec", "name"), [("gzip", "gzip"), ("zstd", "Zstandard")])
def test_packed_file_that_is_not_called_so_is_told(codec: str, name: str) -> None:
    assert run(pack(TABLE, codec), "d.csv")[0].guessed == {"compression": name}


def test_file_that_a_browser_unpacked_is_read_as_it_is() -> None:
    assert run(TABLE, "d.csv.gz")[0].num_rows == 1


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_packed_files_one_behind_the_other_are_one(codec: str) -> None:
    assert run(pack(TABLE, codec) + pack(b"c,d\n", codec), "d.csv.gz")[0].num_rows == 2


def test_packed_bytes_may_come_one_by_one() -> None:
    assert ingest(ByteByByte(pack(TABLE, "gzip")), "d.csv.gz", io.BytesIO()).num_rows == 1


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_damaged_file_is_refused(codec: str) -> None:
    packed = pack(b"text\n" + os.urandom(1000).hex().encode() + b"\n", codec)
    assert "file is damaged or cut short" in fault(packed[:-9], "d.csv.gz").message
    assert "file is damaged or cut short" in fault(packed + b"rest", "d.csv.gz").message


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_file_that_grows_beyond_measure_is_refused(monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    monkeypatch.setattr(unpacked, "FREE_BYTES", 1_000_000)
    content = b"text\n" + (b"a" * 999 + b"\n") * 5_000
    message = fault(pack(content, codec), "d.csv.gz").message
    assert "at most 200 times as many" in message
    assert "upload it unpacked, or in parts" in message
    monkeypatch.setattr(unpacked, "MAX_UNPACKED_BYTES", 500_000)
    assert "has more than 500,000 bytes unpacked" in fault(pack(content, codec), "d.csv.gz").message


def test_row_limit_holds_for_unpacked_rows() -> None:
    content = pack(b"text\n" + b"a" * 5_000, "gzip")
    assert "line 2: the line is longer than 1,000 bytes" in fault(content, "d.csv.gz", max_row_bytes=1_000).message
