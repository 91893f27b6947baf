"""Lines of an upload, a chunk at a time, checked to be UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from sienn_ray.errors import InvalidDatasetError

CHUNK_BYTES = 64 * 1024

_NOT_UTF8 = (
    "byte 0x{byte:02x} at offset {offset} is not UTF-8; save the file as UTF-8, or name the encoding that it has, "
    "as in encoding=windows-1252 for files of Excel on Windows"
)
_NUL = "byte 0x{byte:02x} at offset {offset} is not text, perhaps UTF-16; save the file as UTF-8"


def utf8_chunks(source: BinaryIO) -> Iterator[bytes]:
    """Read a file in chunks that are valid UTF-8, without a byte order mark, and never end within a character.

    Raises:
        InvalidDatasetError: The file is empty, or has a byte that is NUL or not UTF-8.
    """
    pending, offset, line, is_last, is_start = b"", 0, 1, False, True
    while not is_last:
        chunk = source.read(CHUNK_BYTES)
        is_last = not chunk
        data = pending + chunk
        if is_start and (is_last or len(data) >= len(codecs.BOM_UTF8)):
            if not data:
                raise InvalidDatasetError("the file is empty")
            is_start, offset = False, len(data)
            data = data.removeprefix(codecs.BOM_UTF8)
            offset -= len(data)
        elif is_start:
            pending = data
            continue
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
