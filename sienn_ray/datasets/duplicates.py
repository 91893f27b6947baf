"""Rows that repeat an earlier one, found by their hashes with as little memory for a billion rows as for a thousand."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

# One row: its hash in two halves, its number, and its line in the user's file.
DTYPE = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8"), ("line", "<i8")])
_BUCKET_BITS = 6


class DuplicateFinder:
    """Collects rows in temporary files, by the first bits of their hashes, and compares within one file at a time."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> DuplicateFinder:
        self._buckets: list[IO[bytes]] = [
            self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            for _ in range(1 << _BUCKET_BITS)
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Add rows of `DTYPE`, in any order."""
        numbers = rows["high"] >> np.uint64(64 - _BUCKET_BITS)
        for number in np.unique(numbers):
            self._buckets[int(number)].write(rows[numbers == number].tobytes())

    def repeated(self, max_lines: int) -> tuple[int, list[int]]:
        """Return the number of rows that repeat an earlier one, and the lines of the first of them."""
        count, first = 0, np.empty(0, DTYPE)
        for bucket in self._buckets:
            repeats = _repeats(bucket)
            count += len(repeats)
            first = np.concatenate([first, repeats])
            first = first[np.argsort(first["row"], kind="stable")][:max_lines]
        return count, [int(line) for line in first["line"]]


def _repeats(bucket: IO[bytes]) -> npt.NDArray[Any]:
    bucket.seek(0)
    rows = np.frombuffer(bucket.read(), DTYPE)
    rows = rows[np.lexsort((rows["row"], rows["low"], rows["high"]))]
    is_repeat = np.zeros(len(rows), bool)
    is_repeat[1:] = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    return rows[is_repeat]
