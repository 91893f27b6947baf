"""Endings of file names: what they say of a file's content."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath

from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError


class Container(StrEnum):
    """A kind of file that rows are in."""

    CSV = "CSV"
    JSON = "JSON"
    JSON_LINES = "JSON lines"
    TEXT = "text"
    PARQUET = "Parquet"


_CONTAINERS = {
    ".csv": Container.CSV,
    ".json": Container.JSON,
    ".jsonl": Container.JSON_LINES,
    ".ndjson": Container.JSON_LINES,
    ".parquet": Container.PARQUET,
    ".tsv": Container.CSV,
    ".txt": Container.TEXT,
}
_ALSO = {".jsonlines": Container.JSON_LINES, ".pq": Container.PARQUET, ".tab": Container.CSV}
# All that files of rows may end with.
EXTENSIONS = (*_CONTAINERS, *_ALSO)
_PACKED = (".gz", ".zst")
_PACKED_ALSO = (".gzip", ".zstd")


def container_of(filename: str) -> Container:
    """Tell from a file's name what is in it; `.txt` is for all that its content has to tell.

    Raises:
        InvalidDatasetError: The ending isn't known, or there is none.

    Example:
        >>> container_of("train.jsonl.gz"), container_of("train.csv.txt"), container_of("notes.txt")
        (<Container.JSON_LINES: 'JSON lines'>, <Container.CSV: 'CSV'>, <Container.TEXT: 'text'>)
    """
    path = PurePath(filename)
    ending = path.suffix.lower()
    if ending in (*_PACKED, *_PACKED_ALSO):
        inner = PurePath(path.stem).suffix.lower()
        return container_of(path.stem) if inner in (_CONTAINERS | _ALSO) else Container.TEXT
    known = _CONTAINERS | _ALSO
    if ending not in known:
        found = f"the extension {shown(ending)} is not" if ending else "a file without an extension is not"
        raise InvalidDatasetError(
            f"{found} accepted; use one of {', '.join(_CONTAINERS)}, "
            f"or one of these with {' or '.join(_PACKED)} behind it"
        )
    # Windows hides endings that it knows, so that a file is saved as train.jsonl.txt.
    return known.get(PurePath(path.stem).suffix.lower(), known[ending]) if ending == ".txt" else known[ending]


def is_tab_separated(filename: str) -> bool:
    """Return whether a file's name says that tabs separate its columns."""
    return bool({suffix.lower() for suffix in PurePath(filename).suffixes} & {".tsv", ".tab"})
