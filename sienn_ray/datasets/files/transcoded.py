"""Text in another encoding, read as UTF-8."""

from __future__ import annotations

import codecs

from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.files.sources import HeadedSource, Readable
from sienn_ray.datasets.text_encodings import ENCODINGS
from sienn_ray.datasets.utf8 import CHUNK_BYTES
from sienn_ray.errors import InvalidDatasetError

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def as_utf8(source: HeadedSource, encoding: str | None, notes: FileNotes) -> HeadedSource:
    """Read a text as UTF-8, whatever encoding it has.

    Args:
        source: The text.
        encoding: One of `ENCODINGS`, or None: a byte order mark tells it then.
        notes: Told of an encoding that a mark has told.

    Raises:
        InvalidDatasetError: The text begins with the mark of another encoding than the given one.
    """
    if encoding is None:
        encoding = next((name for mark, name in _MARKS.items() if source.head.startswith(mark)), "utf-8")
        if encoding != "utf-8":
            notes.guess("encoding", encoding)
    elif encoding != "utf-8" and source.head.startswith(codecs.BOM_UTF8):
        raise InvalidDatasetError(
            f"the file begins with the byte order mark of UTF-8, so it isn't {encoding}; leave encoding out", 1
        )
    return source if encoding == "utf-8" else HeadedSource(_Transcoded(source, encoding))


class _Transcoded:
    """A source of UTF-8, made of one in another encoding; never ends within a character."""

    def __init__(self, source: Readable, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(ENCODINGS[encoding])("strict")
        self._fault: InvalidDatasetError | None = None
        self._num_bytes = 0
        self._line = 1

    def read(self, _: int = -1, /) -> bytes:
        """Read on: a piece of any length, empty at the end."""
        if self._fault:
            raise self._fault
        while True:
            data = self._source.read(CHUNK_BYTES)
            text = self._decoded(data)
            self._num_bytes += len(data)
            if text or not data or self._fault:
                break
        if self._fault and not text:
            raise self._fault
        self._line += text.count("\n")
        # A mark in the middle is left to the readers of lines.
        return text.encode("utf-8", "surrogatepass")

    def _decoded(self, data: bytes) -> str:
        state = self._decoder.getstate()
        try:
            return self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            # What is before the bad byte is given out first, so that faults come in the order of the file.
            self._decoder.setstate(state)
            num_pending = len(state[0])
            text = self._decoder.decode(data[: max(0, error.start - num_pending)])
            place = self._num_bytes - num_pending + error.start
            self._fault = InvalidDatasetError(
                f"byte 0x{error.object[error.start]:02x} at offset {place} is not {self._encoding}; give the encoding "
                "that the file was saved in, or save it as UTF-8",
                self._line + text.count("\n"),
            )
            return text
