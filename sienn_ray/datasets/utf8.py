"""Lines of an upload, a chunk at a time, checked to be UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from sienn_ray.errors import InvalidDatasetError

CHUNK_BYTES = 64 * 1024

_MAGIC = {
    b"PK\x03\x04": "a ZIP archive (or an Excel workbook)",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x1f\x8b": "a gzip file",
    b"(\xb5/\xfd": "a Zstandard file",
    b"\xfd7zXZ\x00": "an xz file",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
    codecs.BOM_UTF32_BE: "UTF-32 text",
}
_HEAD_BYTES = max(len(magic) for magic in _MAGIC)

_NOT_UTF8 = "byte 0x{byte:02x} at offset {offset} is not UTF-8; save the file as UTF-8"
_NUL = "byte 0x{byte:02x} at offset {offset} is not text, perhaps UTF-16; save the file as UTF-8"


def utf8_chunks(source: BinaryIO) -> Iterator[bytes]:
    """Read a file in chunks that are valid UTF-8, without a byte order mark, and never end within a character.

    Raises:
        InvalidDatasetError: The file is empty, is of another kind, or has a byte that is NUL or not UTF-8.
    """
    head = _head(source)
    pending = head.removeprefix(codecs.BOM_UTF8)
    offset, line, is_last = len(head) - len(pending), 1, False
    while not is_last:
        chunk = source.read(CHUNK_BYTES)
        is_last = not chunk
        data = pending + chunk
        num_valid, fault = _checked(data, is_last)
        # What is before a bad byte is given out first, so that faults come in the order of the file.
        if valid := data[:num_valid]:
            yield valid
        pending = data[num_valid:]
        offset += num_valid
        line += valid.count(b"\n")
        if fault:
            raise InvalidDatasetError(fault.format(byte=pending[0], offset=offset), line)


def text_lines(source: BinaryIO, max_line_bytes: int) -> Iterator[str]:
    r"""Read a file line by line; only "\n" ends a line, and each line yielded ends with it.

    Memory is bounded by `max_line_bytes`, since a longer line is refused before it is read to its end.

    Raises:
        InvalidDatasetError: As `utf8_chunks`, or a line is too long.
    """
    num_lines, tail = 0, b""
    for chunk in utf8_chunks(source):
        *whole, tail = (tail + chunk).split(b"\n")
        for raw in whole:
            num_lines += 1
            yield _decoded(raw, num_lines, max_line_bytes)
        _check_length(tail, num_lines + 1, max_line_bytes)
    if tail:
        yield _decoded(tail, num_lines + 1, max_line_bytes)


def _head(source: BinaryIO) -> bytes:
    """The first bytes, refused if they are those of another kind of file."""
    head = b""
    while len(head) < _HEAD_BYTES and (more := source.read(_HEAD_BYTES - len(head))):
        head += more
    if not head:
        raise InvalidDatasetError("the file is empty")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise InvalidDatasetError(f"the content is {kind}; save the data as CSV, JSON or JSONL text in UTF-8", 1)
    return head


def _checked(data: bytes, is_last: bool) -> tuple[int, str]:
    """How many bytes of `data` are whole characters of text, and what is wrong with the next one, if anything is."""
    fault = ""
    try:
        _, num_valid = codecs.utf_8_decode(data, "strict", is_last)
    except UnicodeDecodeError as error:
        num_valid, fault = error.start, _NOT_UTF8
    nul = data.find(b"\0", 0, num_valid)
    return (num_valid, fault) if nul < 0 else (nul, _NUL)


def _decoded(raw: bytes, line: int, max_line_bytes: int) -> str:
    _check_length(raw, line, max_line_bytes)
    return raw.decode() + "\n"


def _check_length(raw: bytes, line: int, max_line_bytes: int) -> None:
    if len(raw) > max_line_bytes:
        raise InvalidDatasetError(f"the line is longer than {max_line_bytes:,} bytes; shorten or split the row", line)
