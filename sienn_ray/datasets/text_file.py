"""Rows of plain text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from sienn_ray.datasets.readers import RawRow
from sienn_ray.datasets.utf8 import text_lines
from sienn_ray.errors import InvalidDatasetError


def read_plain_text(source: BinaryIO, max_row_bytes: int) -> Iterator[RawRow]:
    """Read plain text: a row of `text` for each paragraph where a blank line ends the first one, else for each line.

    The first paragraph tells how the others are divided, so no more than one is held.
    """
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
