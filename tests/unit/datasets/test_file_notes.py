from __future__ import annotations

from sienn_ray.datasets.file_notes import MAX_NAMES, MAX_NOTES, FileNotes


def test_notes_are_bounded_and_fit_for_a_database() -> None:
    notes = FileNotes()
    for number in range(1_000):
        notes.ignore(f"{number}\0" + "x" * 10_000)
        notes.add(f"{number}\ud800" + "x" * 10_000)
    assert (len(notes.ignored_columns), len(notes.notes)) == (MAX_NAMES, MAX_NOTES)
    assert max(map(len, (*notes.ignored_columns, *notes.notes))) < 600
    assert not any("\0" in text or "\ud800" in text for text in (*notes.ignored_columns, *notes.notes))


def test_the_same_is_said_once() -> None:
    notes = FileNotes()
    for _ in range(2):
        notes.ignore("id")
        notes.add("a note")
        notes.guess("separator", ";")
    assert (notes.ignored_columns, notes.notes, notes.guessed) == (("id",), ("a note",), {"separator": ";"})
