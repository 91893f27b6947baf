"""Differences between two datasets: rows that were added, removed or changed, counted in bounded memory.

A row is known by a hash of its content, wherever it stands and whatever file it came from. A row that was removed and
one that was added are one that was changed if they have the same prompt. Hashes are compared a range of them at a time.
Each range reads both datasets once more, so those of very many rows are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.intake import AbandonedError
from sienn_ray.datasets.raw_rows import raw_row, stored_rows
from sienn_ray.datasets.row_pages import ShownRow, shown_row
from sienn_ray.errors import ArtifactError, InvalidDatasetError
from sienn_ray.storage import Storage

MAX_EXAMPLES = 5
# A row of each dataset takes about 200 bytes while its range is compared.
_ROWS_AT_ONCE = 250_000
# Of both together: more would be read for hours, and all of one prompt are in one range.
MAX_ROWS = 2_000_000


@dataclass(frozen=True)
class ChangedRow:
    """A row whose answer is another one in the second dataset."""

    before: ShownRow
    after: ShownRow


@dataclass(frozen=True)
class Differences:
    """Differences between two datasets.

    Args:
        num_added: Rows that only the second one has.
        num_removed: Rows that only the first one has.
        num_changed: Rows with the same prompt and another answer; they are neither added nor removed.
        num_same: Rows that both have.
        added: The first of the added rows.
        removed: The first of the removed rows.
        changed: The first of the changed rows.
    """

    num_added: int
    num_removed: int
    num_changed: int
    num_same: int
    added: tuple[ShownRow, ...]
    removed: tuple[ShownRow, ...]
    changed: tuple[ChangedRow, ...]


def kept_comparison(
    storage: Storage, first_id: str, second_id: str, abandoned: threading.Event | None = None
) -> Differences:
    """Compare two datasets, unless that was done before; the result is kept with the second one's files.

    Raises:
        InvalidDatasetError: They have too many rows.
        ArtifactError: Rows are missing from storage, or altered.
        AbandonedError: `abandoned` was set.
    """
    key = f"{dataset_keys.folder_key(second_id)}/differences-{first_id}.json"
    with contextlib.suppress(ArtifactError, ValidationError):
        return _KEPT.validate_json(storage.read_bytes(key))
    found = compare(storage, first_id, second_id, abandoned)
    storage.write_bytes(key, _KEPT.dump_json(found))
    return found


def compare(storage: Storage, first_id: str, second_id: str, abandoned: threading.Event | None = None) -> Differences:
    """Compare two datasets, row by row.

    Args:
        storage: Where both are.
        first_id: The earlier one.
        second_id: The later one.
        abandoned: Ends the reading once it is set.

    Raises:
        InvalidDatasetError: They have too many rows.
        ArtifactError: Rows are missing from storage, or altered.
        AbandonedError: `abandoned` was set.
    """
    num_rows = sum(_num_rows(storage, dataset_id) for dataset_id in (first_id, second_id))
    if num_rows > MAX_ROWS:
        raise InvalidDatasetError(
            f"both versions together have {num_rows:,} rows; at most {MAX_ROWS:,} are compared, download their files "
            "and compare them elsewhere"
        )
    num_ranges = max(1, -(-num_rows // _ROWS_AT_ONCE))
    found = _Found()
    for number in range(num_ranges):
        found.add(_Reading(storage, number, num_ranges, abandoned), first_id, second_id)
    return found.differences()


_KEPT = TypeAdapter(Differences)


@dataclass(frozen=True)
class _Reading:
    """The rows of one range, from storage."""

    storage: Storage
    number: int
    num_ranges: int
    abandoned: threading.Event | None

    def rows(self, dataset_id: str) -> Iterator[tuple[bytes, bytes, dict[str, Any]]]:
        """Hashes of prompt and content of each row, and the row."""
        with _opened(self.storage, dataset_id) as parquet:
            for row in stored_rows(parquet):
                if self.abandoned is not None and self.abandoned.is_set():
                    raise AbandonedError
                prompt, content = _hashes(row)
                if int.from_bytes(prompt) % self.num_ranges == self.number:
                    yield prompt, content, row


_Surplus = Counter[tuple[bytes, bytes]]


class _Found:
    """Differences as they are found, a range at a time."""

    def __init__(self) -> None:
        self._num_added = self._num_removed = self._num_changed = self._num_same = 0
        self._added: list[ShownRow] = []
        self._removed: list[ShownRow] = []
        self._changed: list[ChangedRow] = []

    def add(self, reading: _Reading, first_id: str, second_id: str) -> None:
        """Count a range, and take examples where there are too few."""
        before: _Surplus = Counter((prompt, content) for prompt, content, _ in reading.rows(first_id))
        after: _Surplus = Counter((prompt, content) for prompt, content, _ in reading.rows(second_id))
        added, removed = after - before, before - after
        self._num_same += (before & after).total()
        changed = _by_prompt(added) & _by_prompt(removed)
        self._num_changed += changed.total()
        self._num_added += added.total() - changed.total()
        self._num_removed += removed.total() - changed.total()
        old = _Examples(MAX_EXAMPLES - len(self._removed), changed)
        old.take(reading.rows(first_id) if removed else (), removed)
        new = _Examples(MAX_EXAMPLES - len(self._added), changed)
        new.take(reading.rows(second_id) if added else (), added)
        self._removed += old.alone
        self._added += new.alone
        for prompt in old.halves.keys() & new.halves.keys() if len(self._changed) < MAX_EXAMPLES else ():
            self._changed.append(ChangedRow(old.halves[prompt], new.halves[prompt]))
        self._changed = sorted(self._changed, key=lambda pair: pair.before.row)[:MAX_EXAMPLES]

    def differences(self) -> Differences:
        """Return all that was found."""
        return Differences(
            self._num_added,
            self._num_removed,
            self._num_changed,
            self._num_same,
            tuple(self._added),
            tuple(self._removed),
            tuple(self._changed),
        )


class _Examples:
    """Examples of the rows that one of two datasets has more often.

    Args:
        num_wanted: Examples of rows that were added, or removed.
        changed: How many rows were changed, by prompt; examples of the first of these are halves of a change.
    """

    def __init__(self, num_wanted: int, changed: Counter[bytes]) -> None:
        self._num_wanted = num_wanted
        self._changed = Counter(changed)
        # The same prompts for both datasets, so that the halves make pairs.
        self._shown = set(sorted(changed)[:MAX_EXAMPLES])
        self.alone: list[ShownRow] = []
        self.halves: dict[bytes, ShownRow] = {}

    def take(self, rows: Iterable[tuple[bytes, bytes, dict[str, Any]]], surplus: _Surplus) -> None:
        """Look through a dataset's rows, until there are examples enough."""
        left = Counter(surplus)
        for prompt, content, row in rows:
            if left[prompt, content] <= 0:
                continue
            left[prompt, content] -= 1
            if self._changed[prompt] > 0:
                self._changed[prompt] -= 1
                if prompt in self._shown:
                    self.halves.setdefault(prompt, shown_row(row))
            elif len(self.alone) < self._num_wanted:
                self.alone.append(shown_row(row))
            if len(self.alone) >= self._num_wanted and len(self.halves) >= len(self._shown):
                return


def _by_prompt(rows: Counter[tuple[bytes, bytes]]) -> Counter[bytes]:
    """How many rows there are of each prompt; texts have none, and are never changed ones."""
    counts: Counter[bytes] = Counter()
    for (prompt, content), number in rows.items():
        if prompt != content:
            counts[prompt] += number
    return counts


def _hashes(row: dict[str, Any]) -> tuple[bytes, bytes]:
    """Hashes of a row's prompt and of all of it; of a text, twice the same."""
    raw = raw_row(row)
    content = _hash(raw)
    if "text" in raw:
        return content, content
    prompt = raw["prompt"] if "prompt" in raw else raw["messages"][:-1]
    return _hash({"prompt": prompt, "tools": raw.get("tools")}), content


def _hash(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _num_rows(storage: Storage, dataset_id: str) -> int:
    with _opened(storage, dataset_id) as parquet:
        return int(parquet.metadata.num_rows)


@contextlib.contextmanager
def _opened(storage: Storage, dataset_id: str) -> Iterator[pq.ParquetFile]:
    key = dataset_keys.rows_key(dataset_id)
    with storage.reading(key) as file:
        try:
            yield pq.ParquetFile(cast(Any, file))
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{storage.location(key)} can't be read ({error}); upload the file again") from error
