"""Files of kinds that can't be read, told by their first bytes: one cause, one message, one way out."""

from __future__ import annotations

import re

from sienn_ray.datasets.files.extensions import Container
from sienn_ray.errors import InvalidDatasetError

_AS_TEXT = "save the data as CSV, JSON, JSONL or Parquet"
_HEAD_CHARS = 2_000

# Bytes that no text begins with.
_MAGIC = {
    b"PK\x03\x04": f"a ZIP archive (or an Excel workbook); unpack it, or {_AS_TEXT}",
    b"PK\x05\x06": f"an empty ZIP archive; {_AS_TEXT}",
    b"\x1f\x8b": "a gzip file within another packed file; unpack it",
    b"(\xb5/\xfd": "a Zstandard file within another packed file; unpack it",
    b"\xfd7zXZ\x00": "an xz file; unpack it, or pack it as .gz or .zst",
    b"BZh": "a bzip2 file; unpack it, or pack it as .gz or .zst",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"PAR1": "a Parquet file within another one; upload the Parquet file as it is, it is packed by itself",
    b"PARE": "an encrypted Parquet file; write it without encryption",
    b"ORC": f"an ORC file; {_AS_TEXT}",
    b"Obj\x01": f"an Avro file; {_AS_TEXT}",
    b"ARROW1": "an Arrow file; write it as Parquet, by pyarrow.parquet.write_table",
    b"\xff\xff\xff\xff": "an Arrow stream; write it as Parquet, by dataset.to_parquet",
    b"\xd0\xcf\x11\xe0": f"an old Excel workbook; {_AS_TEXT}",
    b"SQLite format 3\0": f"an SQLite database; {_AS_TEXT}",
    b"\x93NUMPY": f"a NumPy array; {_AS_TEXT}",
    b"\x89HDF": f"an HDF5 file; {_AS_TEXT}",
    b"\x89PNG": "an image; the rows are needed as text",
    b"\xff\xd8\xff": "an image; the rows are needed as text",
    b"\x80\x02}": f"a pickle of Python; {_AS_TEXT}",
    b"\x80\x03": f"a pickle of Python; {_AS_TEXT}",
    b"\x80\x04": f"a pickle of Python; {_AS_TEXT}",
    b"\x80\x05": f"a pickle of Python; {_AS_TEXT}",
    b"%PDF-": f"a PDF document; {_AS_TEXT}",
    b"{\\rtf": "RTF, which word processors write; save the file as plain text there (.txt), in UTF-8",
}
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257
# Text that was downloaded or written in place of rows. Each is sought at the beginning, case aside.
_MARKS = (
    (r"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (
        r"<!doctype html|<html|<head[\s>]|<body[\s>]|<script[\s>]|<meta\s",
        "an HTML page, a web page; download the file itself, perhaps after signing in",
    ),
    (
        r"<\?xml|<!doctype|<svg[\s>]",
        "XML; write each row as a JSON object, one a line (.jsonl)",
    ),
)
# As above, where JSON is expected.
_MARKS_IN_JSON = (
    (
        r"\[?\s*\{\s*'",
        "Python's notation of a dict, with single quotes, and no JSON; write each row by json.dumps(row), one a line",
    ),
    (r"<[a-z!]", "XML or HTML; write each row as a JSON object, one a line (.jsonl)"),
    (
        r"---[ \t]*\r?\n|%yaml|- +(?:\w+|\"\w+\"):(?:\s|$)"
        r"|\w+:[ \t]*(?:[^{\[\n]*)\r?\n[ \t]*(?:-[ \t]|\w+:(?:\s|$))",
        "YAML; write each row as a JSON object, one a line, by json.dumps(row)",
    ),
    (r"\[{1,2}[\w.\"-]+\]{1,2}[ \t]*\r?\n[\w\"-]+\s*=", "TOML; write each row as a JSON object, one a line"),
)


def check_magic(head: bytes) -> None:
    """Refuse a file that is no text.

    Args:
        head: The first bytes of it, as they are.

    Raises:
        InvalidDatasetError: They are those of another kind of file.
    """
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            raise _error(words)
    if head[_TAR_MARK_AT : _TAR_MARK_AT + len(_TAR_MARK)] == _TAR_MARK:
        raise _error("a tar archive; unpack it, and upload each file")


def check_unmarked_utf16(head: bytes) -> None:
    """Refuse UTF-16 that doesn't say which one it is.

    Raises:
        InvalidDatasetError: Every second byte is NUL, or most are.
    """
    start = head[:_HEAD_CHARS]
    for name, zeros, others in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) * 0.8 and others.count(0) < len(others) * 0.2:
            raise _error(f"UTF-16 without a byte order mark; give encoding={name}, or save it as UTF-8")


def check_marks(head: bytes, container: Container) -> None:
    """Refuse a text that isn't rows.

    Args:
        head: Its first bytes, in UTF-8.
        container: What it should be by its name.

    Raises:
        InvalidDatasetError: It is of another kind.
    """
    start = head[:_HEAD_CHARS].decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    in_json = container in (Container.JSON, Container.JSON_LINES)
    is_dict = container is Container.TEXT and start.startswith("{'")
    for pattern, words in (*_MARKS, *(_MARKS_IN_JSON if in_json else _MARKS_IN_JSON[:1] if is_dict else ())):
        if re.match(pattern, start, re.IGNORECASE):
            raise _error(words)


def _error(words: str) -> InvalidDatasetError:
    return InvalidDatasetError(f"the content is {words}", 1)
