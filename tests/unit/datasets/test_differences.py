from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sienn_ray.datasets import dataset_keys, differences
from sienn_ray.datasets.differences import MAX_EXAMPLES, Differences, compare, kept_comparison
from sienn_ray.datasets.intake import AbandonedError
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, Message, Role
from sienn_ray.errors import ArtifactError, InvalidDatasetError
from sienn_ray.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}")


def talk(prompt: str, answer: str) -> CanonicalRow:
    return CanonicalRow((Message(Role.USER, prompt), Message(Role.ASSISTANT, answer)))


def text(words: str) -> CanonicalRow:
    return CanonicalRow(text=words)


def store(storage: Storage, dataset_id: str, rows: Sequence[CanonicalRow]) -> None:
    with storage.writing(dataset_keys.rows_key(dataset_id)) as file, RowWriter(file) as writer:
        for number, row in enumerate(rows):
            writer.add(row, number + 1, [])


def counts(found: Differences) -> tuple[int, int, int, int]:
    return found.num_added, found.num_removed, found.num_changed, found.num_same


BEFORE = [talk("a", "1"), talk("b", "2"), talk("b", "2"), talk("c", "3"), talk("d", "4")]
AFTER = [talk("d", "4"), talk("b", "2"), talk("c", "three"), talk("e", "5"), talk("e", "6")]


@pytest.mark.parametrize("at_once", [1, 3, 1000])
class TestCounts:
    def test_rows_are_compared_by_content_and_by_how_often_they_are_there(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(differences, "_ROWS_AT_ONCE", at_once)
        store(storage, "x", BEFORE)
        store(storage, "y", AFTER)
        found = compare(storage, "x", "y")
        assert counts(found) == (2, 2, 1, 2)
        assert {row.messages[-1].content for row in found.added if row.messages} == {"5", "6"}
        assert {row.messages[-1].content for row in found.removed if row.messages} == {"1", "2"}
        ((before, after),) = [(pair.before, pair.after) for pair in found.changed]
        assert (before.row, after.row) == (3, 2)

    def test_texts_are_never_changed(self, storage: Storage, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
        monkeypatch.setattr(differences, "_ROWS_AT_ONCE", at_once)
        store(storage, "x", [text("a"), text("b")])
        store(storage, "y", [text("b"), text("c"), text("c")])
        assert counts(compare(storage, "x", "y")) == (2, 1, 0, 1)


class TestBounds:
    def test_more_rows_than_are_compared(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(differences, "MAX_ROWS", 9)
        store(storage, "x", BEFORE)
        store(storage, "y", AFTER)
        with pytest.raises(InvalidDatasetError, match=r"together have 10 rows; at most 9 are compared"):
            kept_comparison(storage, "x", "y")

    def test_many_rows_of_one_prompt(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(differences, "_ROWS_AT_ONCE", 10)
        store(storage, "x", [talk("same", f"{n}") for n in range(100)])
        store(storage, "y", [talk("same", f"{n}") for n in range(50, 150)])
        assert counts(compare(storage, "x", "y")) == (0, 0, 50, 50)


class TestExamples:
    def test_are_bounded_and_every_kind_has_some(self, storage: Storage) -> None:
        store(storage, "x", [talk(f"q{n}", "old") for n in range(20)] + [talk(f"r{n}", "gone") for n in range(20)])
        store(storage, "y", [talk(f"q{n}", "new") for n in range(20)] + [talk(f"s{n}", "come") for n in range(20)])
        found = compare(storage, "x", "y")
        assert counts(found) == (20, 20, 20, 0)
        assert len(found.added) == len(found.removed) == len(found.changed) == MAX_EXAMPLES
        for pair in found.changed:
            assert [message.content for message in pair.after.messages or ()][1:] == ["new"]
            assert (pair.before.messages or ())[:1] == (pair.after.messages or ())[:1]

    def test_nothing_differs(self, storage: Storage) -> None:
        store(storage, "x", BEFORE)
        assert compare(storage, "x", "x") == Differences(0, 0, 0, 5, (), (), ())


class TestKept:
    def test_result_is_kept_with_the_second_dataset(self, storage: Storage) -> None:
        store(storage, "x", BEFORE)
        store(storage, "y", AFTER)
        found = kept_comparison(storage, "x", "y")
        storage.delete(dataset_keys.folder_key("x"))
        assert kept_comparison(storage, "x", "y") == found

    def test_missing_rows(self, storage: Storage) -> None:
        with pytest.raises(ArtifactError):
            compare(storage, "x", "y")

    def test_nobody_waits_any_more(self, storage: Storage) -> None:
        store(storage, "x", BEFORE)
        abandoned = threading.Event()
        abandoned.set()
        with pytest.raises(AbandonedError):
            compare(storage, "x", "x", abandoned)
