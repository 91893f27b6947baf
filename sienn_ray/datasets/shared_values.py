"""Values that stand beside the list of rows in a JSON file, and are each row's own where it has none."""

from __future__ import annotations

import json
from typing import Any

from sienn_ray.datasets.columns import normalized_column
from sienn_ray.datasets.file_notes import FileNotes
from sienn_ray.datasets.shapes.names import BESIDE, CHANGES_LEARNING, Part
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

# They are written with each row, of which a file may have millions.
MAX_CHARS = 32_768
_SHARED = (Part.SYSTEM, Part.TOOLS, Part.LABEL, Part.TEMPLATE_VARIABLES)
_NAMES_OF_PART = {name: frozenset(BESIDE[part]) for part in _SHARED for name in BESIDE[part]}
_NOTHING: tuple[object, ...] = (None, "", [], {})


class SharedValues:
    """Values that all rows of a file share.

    Args:
        notes: Told of each.
    """

    def __init__(self, notes: FileNotes) -> None:
        self._notes = notes
        self._values: dict[str, Any] = {}

    def is_read(self, name: str) -> bool:
        """Return whether a value of this name is a part of each row."""
        return normalized_column(name) in _NAMES_OF_PART

    def take(self, name: str, value: Any, *, is_before: bool) -> bool:
        """Take a value that stands beside the rows, and return whether something is read from it.

        Raises:
            InvalidDatasetError: It would change what is learned, and can't be read: it stands behind the rows, is too
                long, or each row has to have its own.
        """
        known = normalized_column(name)
        if known not in CHANGES_LEARNING or value in _NOTHING:
            return False
        if known not in _NAMES_OF_PART:
            raise InvalidDatasetError(
                f"{shown(name)} beside the rows would change what is learned, and can't be read there; put it into "
                "each row, or remove it"
            )
        if not is_before:
            raise InvalidDatasetError(
                f"{shown(name)} would change what is learned, and stands behind the rows; put it before them, "
                "or remove it"
            )
        if any(known in _NAMES_OF_PART[normalized_column(other)] for other in self._values):
            raise InvalidDatasetError(f"{shown(name)} beside the rows comes twice, under one name or two; keep one")
        if (num_chars := len(json.dumps([*self._values.values(), value]))) > MAX_CHARS:
            raise InvalidDatasetError(
                f"{shown(name)} beside the rows has too many characters to be written with each of them: "
                f"{num_chars:,}, and {MAX_CHARS:,} are taken; shorten it"
            )
        self._values[name] = value
        self._notes.add(f"{shown(name)} beside the rows is read as that of each row which has none")
        return True

    def added_to(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with these values, where it has none of its own."""
        if not self._values:
            return row
        own = {normalized_column(key) for key, value in row.items() if value is not None}
        missing = {
            name: value
            for name, value in self._values.items()
            if own.isdisjoint(_NAMES_OF_PART[normalized_column(name)])
        }
        nulls = {normalized_column(name) for name in missing}
        return {**{key: value for key, value in row.items() if normalized_column(key) not in nulls}, **missing}
