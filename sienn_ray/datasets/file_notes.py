"""Notes on how a file was read, in bounded number and length."""

from __future__ import annotations

from sienn_ray.datasets.preview import preview_string

MAX_NAMES = 100
MAX_NOTES = 20


class FileNotes:
    """Collects what a user should know of an accepted file: guesses, columns that nothing reads, and other notes."""

    def __init__(self) -> None:
        self.guessed: dict[str, str] = {}
        self._ignored: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    def guess(self, name: str, value: str) -> None:
        """Note what was told from the file's content, under a short name such as `separator`."""
        self.guessed[name] = preview_string(value)

    def ignore(self, column: str) -> None:
        """Note a column, or a key within one, that nothing is read from."""
        if len(self._ignored) < MAX_NAMES:
            self._ignored[preview_string(column)] = None

    def add(self, note: str) -> None:
        """Note something else, in a sentence; the same one counts once."""
        if len(self._notes) < MAX_NOTES:
            self._notes[preview_string(note)] = None

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        """In the order in which they were found."""
        return tuple(self._ignored)

    @property
    def notes(self) -> tuple[str, ...]:
        """In the order in which they were added."""
        return tuple(self._notes)
