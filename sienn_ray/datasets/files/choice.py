"""Choice of the reader of a file, by its name and its content; what is guessed is noted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO, cast

from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.files.csv_rows import read_csv
from sienn_ray.datasets.files.extensions import Container, container_of, is_tab_separated
from sienn_ray.datasets.files.foreign import check_magic, check_marks, check_unmarked_utf16
from sienn_ray.datasets.files.json_layout import JsonLayout, layout_of
from sienn_ray.datasets.files.parquet_rows import MAGIC as PARQUET_MAGIC
from sienn_ray.datasets.files.parquet_rows import read_parquet
from sienn_ray.datasets.files.separators import is_header
from sienn_ray.datasets.files.sources import HeadedSource, LineEnds
from sienn_ray.datasets.files.spread_json import read_spread_json
from sienn_ray.datasets.files.transcoded import as_utf8
from sienn_ray.datasets.files.unpacked import unpacked
from sienn_ray.datasets.json_array import read_json_array
from sienn_ray.datasets.readers import RawRow, read_jsonl
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.text_file import read_plain_text
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

# What a reader gives: rows, and the error of each row that can't be read. It raises what ends the reading.
Rows = Iterator[RawRow | InvalidDatasetError]

_JSON = (Container.JSON, Container.JSON_LINES)
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*\{")
# An object in a file that isn't called JSON: a CSV header or a text may begin with a brace, too.
_OBJECT = re.compile(rb'\{\s*"')
_PACKED = {".gz", ".gzip", ".zst", ".zstd"}


def read_rows(source: BinaryIO, filename: str, max_row_bytes: int, options: ReadingOptions, notes: FileNotes) -> Rows:
    """Read a file's rows, whatever it is.

    Args:
        source: The file, at its beginning. Only `read` is called, and for Parquet `seek` and `tell`.
        filename: Its name, which tells what it should be.
        max_row_bytes: The longest row accepted, as it is in the file.
        options: How to read it, where its user says so.
        notes: Told of what is guessed and what is left out.

    Yields:
        Rows, and in place of a row that can't be read its error.

    Raises:
        InvalidDatasetError: The file can't be read, or not to its end.
    """
    container = container_of(filename)
    packed = HeadedSource(source)
    if not packed.head:
        raise InvalidDatasetError("the file is empty")
    if packed.head.startswith(PARQUET_MAGIC):
        if container is not Container.PARQUET:
            notes.guess("container", Container.PARQUET)
        _tell_unused(options, "Parquet", ("encoding", "separator"), notes)
        return read_parquet(source, max_row_bytes, notes)
    if container is Container.PARQUET:
        raise InvalidDatasetError(
            "the content is no Parquet file, which begins with 'PAR1'; was it cut or changed on the way? A file of "
            "another kind needs its own extension"
        )
    whole_name = PurePath(filename.lower())
    plain = unpacked(packed, notes, says_so=bool(_PACKED & set(whole_name.suffixes)))
    return _read_text(plain, filename, container, max_row_bytes, options, notes)


def _read_text(
    plain: HeadedSource,
    filename: str,
    container: Container,
    max_row_bytes: int,
    options: ReadingOptions,
    notes: FileNotes,
) -> Rows:
    check_magic(plain.head)
    text = as_utf8(plain, options.encoding, notes)
    if text is plain:
        check_unmarked_utf16(plain.head)
    check_marks(text.head, container)
    if b"\r" in text.head and b"\n" not in text.head:
        notes.guess("line_ends", "carriage returns")
        text = HeadedSource(LineEnds(text))
    found = _content(text.head, container, options)
    layout = None
    if found in _JSON:
        _tell_unused(options, "JSON", ("separator",), notes)
        layout = layout_of(text.head, is_whole=text.is_whole, container=found, options=options)
    _tell_container(container, found, layout, notes)
    stream = cast(BinaryIO, text)  # readers call nothing but `read`
    match layout:
        case JsonLayout.LINES:
            return read_jsonl(stream, max_row_bytes, notes)
        case JsonLayout.ARRAY:
            return read_json_array(stream, max_row_bytes, notes)
        case JsonLayout.SPREAD:
            return read_spread_json(stream, max_row_bytes)
        case None if found is Container.CSV:
            usual = "\t" if is_tab_separated(filename) else ","
            return read_csv(stream, max_row_bytes, options, notes, usual_separator=usual)
        case None:
            return read_plain_text(stream, max_row_bytes)


def _content(head: bytes, container: Container, options: ReadingOptions) -> Container:
    """What a text is by its beginning: its name decides where that doesn't."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if container in _JSON:
        if start[:1] in (b"{", b"[") or not is_header(_first_line(start), options):
            return container
        return Container.CSV
    if _OBJECT.match(start):
        return Container.JSON_LINES
    if _ARRAY_OF_OBJECTS.match(start):
        return Container.JSON
    if container is Container.TEXT and (is_header(_first_line(start), options) or _names_separator(start)):
        return Container.CSV
    return container


def _first_line(start: bytes) -> str:
    return start.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")


def _names_separator(start: bytes) -> bool:
    return re.match(rb'"?sep=.', start, re.IGNORECASE) is not None


def _tell_container(named: Container, found: Container, layout: JsonLayout | None, notes: FileNotes) -> None:
    usual = {Container.JSON: JsonLayout.ARRAY, Container.JSON_LINES: JsonLayout.LINES}
    if named is Container.TEXT or found is not named or layout is not usual.get(named):
        notes.guess("container", layout or (f"plain {found}" if found is Container.TEXT else found))


def _tell_unused(options: ReadingOptions, kind: str, names: tuple[str, ...], notes: FileNotes) -> None:
    for name in names:
        if (value := options.as_fields().get(name)) is not None:
            notes.add(f"{name} {shown(value)} says nothing of a {kind} file and was left aside")
