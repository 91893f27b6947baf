"""Rows and files of any size take bounded memory and time."""

from __future__ import annotations

import csv
import io
import tracemalloc
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO, cast

import pytest

from sienn_ray.datasets.ingest import ingest, inspect
from sienn_ray.datasets.utf8 import CHUNK_BYTES
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.ingesting import fault, run


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
