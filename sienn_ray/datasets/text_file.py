"""Rows of `.txt` files: of another kind where the content is one, else of plain text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePath
from typing import BinaryIO, cast

from sienn_ray.datasets.json_array import read_json_array
from sienn_ray.datasets.readers import RawRow, read_csv, read_jsonl
from sienn_ray.datasets.shapes.detection import detect_format
from sienn_ray.datasets.utf8 import CHUNK_BYTES, text_lines
from sienn_ray.errors import InvalidDatasetError

_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*\{")
# What is downloaded in place of the text that was meant.
_NO_TEXT = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with `git lfs pull`",
    b"<!doctype html": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}


def name_within(filename: str) -> str:
    """Return the name that a `.txt` file had before something added that ending, as for `train.jsonl.txt`."""
    path = PurePath(filename)
    return path.stem if path.suffix.lower() == ".txt" else filename


def read_text_file(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow | InvalidDatasetError]:
    """Read a text file: as JSONL, JSON or CSV where it begins as one of them, else as plain text.

    Plain text is a row of `text` for each paragraph where a blank line ends the first one, else for each line.

    Yields:
        Rows, and in place of a row that can't be read its error.

    Raises:
        InvalidDatasetError: As the readers of the other kinds, or the file is something that was downloaded in place of
            the text, or a row is too long.
    """
    head = _head(source)
    whole = cast(BinaryIO, _Again(head, source))  # readers call nothing but `read`
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    lowered = start[:64].lower()
    for mark, words in _NO_TEXT.items():
        if lowered.startswith(mark):
            raise InvalidDatasetError(f"the content is {words}", 1)
    if start.startswith(b"{"):
        return read_jsonl(whole, max_row_bytes)
    if _ARRAY_OF_OBJECTS.match(start):
        return read_json_array(whole, max_row_bytes)
    if _is_header(start.partition(b"\n")[0]):
        return read_csv(whole, max_row_bytes)
    return _plain_rows(whole, max_row_bytes)


class _Again:
    """A file of which the beginning was read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            size = len(self._head)
        head, self._head = self._head[:size], self._head[size:]
        return head


def _head(source: BinaryIO) -> bytes:
    head = b""
    while len(head) < CHUNK_BYTES and (more := source.read(CHUNK_BYTES - len(head))):
        head += more
    return head


def _is_header(line: bytes) -> bool:
    """Return whether a line names the columns of a CSV file, of which there are at least two."""
    names = [name.strip(" \t\r\"'") for name in line.decode("utf-8", "replace").split(",")]
    try:
        detect_format(names)
    except InvalidDatasetError:
        return False
    return len(names) > 1


def _plain_rows(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow]:
    """Rows of plain text. The first paragraph tells how the others are divided, so no more than one is held."""
    lines = enumerate((line.rstrip() for line in text_lines(source, max_row_bytes)), start=1)
    first: list[tuple[int, str]] = []
    num_bytes = 0
    for number, line in lines:
        if line:
            first.append((number, line))
            num_bytes += len(line.encode()) + 1
        elif first:
            yield from _paragraphs(chain(first, [(number, line)], lines), max_row_bytes)
            return
        if num_bytes > max_row_bytes:
            break
    # No blank line was met, or none before more than a row may have.
    for number, line in chain(first, lines):
        if line:
            yield _row(number, line)


def _paragraphs(lines: Iterator[tuple[int, str]], max_row_bytes: int) -> Iterator[RawRow]:
    start, paragraph, num_bytes = 0, list[str](), 0
    for number, line in lines:
        if not line:
            if paragraph:
                yield _row(start, "\n".join(paragraph))
            paragraph, num_bytes = [], 0
            continue
        start = start if paragraph else number
        paragraph.append(line)
        num_bytes += len(line.encode()) + 1
        if num_bytes - 1 > max_row_bytes:
            raise InvalidDatasetError(
                f"the paragraph that begins here is longer than {max_row_bytes:,} bytes; put blank lines where it may "
                "be divided",
                start,
            )
    if paragraph:
        yield _row(start, "\n".join(paragraph))


def _row(line: int, text: str) -> RawRow:
    return RawRow({"text": text}, line)
