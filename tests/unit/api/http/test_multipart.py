from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import pytest

from sienn_ray.api.http import multipart
from sienn_ray.api.http.multipart import (
    ENVELOPE_BYTES,
    MAX_FILENAME_CHARS,
    FileLimit,
    ReceivedFile,
    boundary_of,
    clean_filename,
    receive_file,
    too_large,
)
from sienn_ray.errors import InvalidInputError, MediaTypeError, UploadTooLargeError
from tests.support.fakes_api import BOUNDARY, Part, multipart_body, multipart_type

CHUNK_BYTES = 64 * 1024
# Everything that could be taken for the end of a part: half a boundary, dashes, bare line breaks.
CONTENT = b"\r\n--\r\n--" + BOUNDARY[:-1] + b"\r\n-\r\r\n" + BOUNDARY + b"\0\xff\r\n--" + BOUNDARY[:4] + b"\r\n\r\n"


class CountingSink(io.RawIOBase):
    """Keeps nothing of what is written but sizes and a hash."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.digest = hashlib.sha256()

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sizes.append(len(data))
        self.digest.update(data)
        return len(data)


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def receive_into(sink: IO[bytes] | Any, body: AsyncIterator[bytes], *, max_bytes: int) -> ReceivedFile:
    limit = FileLimit(max_bytes, lambda: too_large(max_bytes))
    with ThreadPoolExecutor(1) as executor:
        return asyncio.run(receive_file(body, BOUNDARY, sink, executor=executor, limit=limit))


def receive(chunks: Iterable[bytes], *, max_bytes: int = 1_000_000) -> tuple[bytes, ReceivedFile]:
    sink = io.BytesIO()
    received = receive_into(sink, stream(chunks), max_bytes=max_bytes)
    return sink.getvalue(), received


def test_large_file_is_never_held_in_memory() -> None:
    num_chunks, chunk = 320, bytes(range(256)) * (CHUNK_BYTES // 256)
    sink, most_held = CountingSink(), 0
    head, tail = multipart_body([Part(b"")], is_closed=False).removesuffix(b"\r\n"), b"\r\n--%s--\r\n" % BOUNDARY

    async def body() -> AsyncIterator[bytes]:
        nonlocal most_held
        yield head
        for index in range(num_chunks):
            most_held = max(most_held, index * CHUNK_BYTES - sink.num_bytes)
            yield chunk
        yield tail

    received = receive_into(sink, body(), max_bytes=10**9)
    assert received.size_bytes == sink.num_bytes == num_chunks * CHUNK_BYTES
    assert received.sha256 == sink.digest.hexdigest() == hashlib.sha256(chunk * num_chunks).hexdigest()
    assert most_held <= multipart._WRITE_BYTES
    assert max(sink.sizes) <= multipart._WRITE_BYTES + CHUNK_BYTES
    assert len(sink.sizes) <= num_chunks * CHUNK_BYTES // multipart._WRITE_BYTES + 1


def test_byte_by_byte_gives_the_same_file() -> None:
    body = multipart_body([Part(CONTENT)])
    content, received = receive(body[index : index + 1] for index in range(len(body)))
    assert content == CONTENT
    assert received == ReceivedFile("rows.csv", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_any_split_in_two_gives_the_same_file() -> None:
    body = multipart_body([Part(b"before", name=b"comment", filename=None), Part(CONTENT), Part(b"", name=b"after")])
    results = {receive([body[:index], body[index:]])[0] for index in range(len(body) + 1)}
    assert results == {CONTENT}


def test_empty_chunks_are_harmless() -> None:
    assert receive([b"", multipart_body([Part(CONTENT)]), b""])[0] == CONTENT


def test_empty_file_is_a_file() -> None:
    assert receive([multipart_body([Part(b"")])]) == (
        b"",
        ReceivedFile("rows.csv", 0, hashlib.sha256(b"").hexdigest()),
    )


def test_text_around_the_parts_is_ignored() -> None:
    assert receive([multipart_body([Part(CONTENT)]) + b"an epilogue\r\n"])[0] == CONTENT


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (multipart_type(), BOUNDARY),
        (f'Multipart/Form-Data; charset=utf-8; boundary="{BOUNDARY.decode()}"', BOUNDARY),
        ("multipart/form-data;boundary=a; boundary=b", b"b"),
        ("multipart/form-data; boundary=" + "b" * 70, b"b" * 70),
    ],
)
def test_boundary_is_understood(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    ["", ";", "text/csv", "application/json", "multipart/mixed; boundary=b", "x" * 10_000, "multipart/form-data\xff"],
)
def test_other_kinds_of_bodies_are_named(content_type: str) -> None:
    with pytest.raises(MediaTypeError, match="is not multipart/form-data; send the file as `curl -F file=@") as error:
        boundary_of(content_type)
    assert len(error.value.message) < 200


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_missing_boundary_is_malformed(content_type: str) -> None:
    with pytest.raises(InvalidInputError, match="names no boundary"):
        boundary_of(content_type)


def test_long_boundary_is_malformed() -> None:
    with pytest.raises(InvalidInputError, match="the multipart boundary has 71 bytes; at most 70 will do"):
        boundary_of("multipart/form-data; boundary=" + "b" * 71)


def test_reading_ends_at_the_limit() -> None:
    num_taken = 0

    def chunks() -> Iterable[bytes]:
        nonlocal num_taken
        yield multipart_body([Part(b"")], is_closed=False).removesuffix(b"\r\n")
        for _ in range(1_000):
            num_taken += 1
            yield b"x" * 1_000

    with pytest.raises(UploadTooLargeError, match=r"more than 10000 bytes \(SIENN_MAX_UPLOAD_BYTES\)"):
        receive(chunks(), max_bytes=10_000)
    assert num_taken == 11


def test_reading_of_other_parts_ends_too() -> None:
    num_taken = 0

    def chunks() -> Iterable[bytes]:
        nonlocal num_taken
        yield multipart_body([Part(b"", filename=None)], is_closed=False).removesuffix(b"\r\n")
        while True:
            num_taken += 1
            yield b"x" * 1_000

    with pytest.raises(UploadTooLargeError):
        receive(chunks(), max_bytes=10_000)
    assert num_taken <= (10_000 + ENVELOPE_BYTES) // 1_000 + 1


def test_nothing_is_written_before_the_file_begins() -> None:
    sink = CountingSink()
    with pytest.raises(InvalidInputError):
        receive_into(sink, stream([multipart_body([Part(b"x" * 50_000, filename=None)])]), max_bytes=1_000_000)
    assert sink.num_bytes == 0


@pytest.mark.parametrize(("num_emoji", "is_taken"), [(1_000, True), (4_000, True), (10_000, False)])
def test_long_name_of_emoji(num_emoji: int, is_taken: bool) -> None:
    body = multipart_body([Part(CONTENT, filename=("🦙" * num_emoji + ".csv").encode())])
    if is_taken:
        assert receive([body])[1].filename == "🦙" * (MAX_FILENAME_CHARS - 4) + ".csv"
    else:
        with pytest.raises(InvalidInputError, match="header"):
            receive([body])


def test_other_parts_do_not_count_towards_the_limit() -> None:
    body = multipart_body([Part(b"x" * 5_000, name=b"comment", filename=None), Part(CONTENT)])
    assert receive([body], max_bytes=len(CONTENT))[0] == CONTENT


@pytest.mark.parametrize("num_headers", [1, 4, 100])
def test_many_headers_are_bounded(num_headers: int) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (index, b"v" * 100) for index in range(num_headers))
    body = multipart_body([Part(CONTENT)]).replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n", 1)
    if num_headers < 8:
        assert receive([body])[0] == CONTENT
    else:
        with pytest.raises(InvalidInputError, match="header"):
            receive([body])


@pytest.mark.parametrize("pieces", [1, 100])
def test_endless_header_is_refused(pieces: int) -> None:
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="' % BOUNDARY
    endless = [b"a" * (1_000_000 // pieces)] * pieces
    with pytest.raises(InvalidInputError, match="header"):
        receive([head, *endless])


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("rows.csv", "rows.csv"),
        ("", ""),
        ("../../rows.csv", "rows.csv"),
        ("..\\..\\rows.csv", "rows.csv"),
        ("folder/", ""),
        ("a\r\nb.csv", "ab.csv"),
        ("a\0b.csv", "ab.csv"),
        ("a\u202eb\u200b.csv", "ab.csv"),
        (" a b .csv", " a b .csv"),
        ("données 🦙.jsonl", "données 🦙.jsonl"),
        ("a" * 4_000, "a" * MAX_FILENAME_CHARS),
        ("a" * 4_000 + ".csv", "a" * (MAX_FILENAME_CHARS - 4) + ".csv"),
        ("a." + "b" * 4_000, "a." + "b" * (MAX_FILENAME_CHARS - 2)),
        ("a" * (MAX_FILENAME_CHARS - 4) + ".csv", "a" * (MAX_FILENAME_CHARS - 4) + ".csv"),
        ("a" * 4_000 + "." + "b" * (MAX_FILENAME_CHARS - 1), "." + "b" * (MAX_FILENAME_CHARS - 1)),
    ],
)
def test_file_name_is_cleaned(name: str, cleaned: str) -> None:
    assert clean_filename(name) == cleaned
    assert len(cleaned) <= MAX_FILENAME_CHARS
