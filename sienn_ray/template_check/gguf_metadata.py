"""Names and values at the beginning of a GGUF file, without its tensors.

The `gguf` package wraps each string of a vocabulary in arrays of its own, which takes seconds; this takes milliseconds.
See the specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sienn_ray.errors import ArtifactError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# By the type's number: bytes, and the letter of `struct`.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_metadata(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Read some of a GGUF file's values, as far as it has them.

    Raises:
        ArtifactError: It is no GGUF file of a known version.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).values(names)
    except (struct.error, ValueError, KeyError, OSError) as error:
        raise ArtifactError(f"{path.name} can't be read as GGUF: {type(error).__name__}: {error}") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._place = 0

    def values(self, names: Collection[str]) -> dict[str, Any]:
        if self._bytes(4) != _MAGIC or self._number("I") not in _VERSIONS:
            raise ValueError("it has another beginning")
        self._number("Q")  # tensors
        found = {}
        for _ in range(self._number("Q")):
            name = self._string()
            value = self._value(self._number("I"))
            if name in names:
                found[name] = value
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        kind, count = self._number("I"), self._number("Q")
        if kind in _NUMBERS:
            letters = f"<{count}{_NUMBERS[kind]}"
            return list(struct.unpack(letters, self._bytes(struct.calcsize(letters))))
        read: Callable[[], Any] = self._string if kind == _STRING else lambda: self._value(_ARRAY)
        return [read() for _ in range(count)]

    def _string(self) -> str:
        return self._bytes(self._number("Q")).decode()

    def _number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self._bytes(struct.calcsize(f"<{letter}")))[0]

    def _bytes(self, count: int) -> bytes:
        start, self._place = self._place, self._place + count
        if count < 0 or self._place > len(self._data):
            raise ValueError("it ends too early")
        return self._data[start : self._place]
