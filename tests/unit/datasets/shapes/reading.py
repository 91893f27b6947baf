"""Rows of one file, read from their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sienn_ray.datasets.schema import CanonicalRow
from sienn_ray.datasets.shapes.findings import Findings
from sienn_ray.datasets.shapes.reader import RowReader
from sienn_ray.datasets.stored_rows import message_form
from sienn_ray.errors import InvalidDatasetError

Row = Mapping[str, Any]


class Read:
    """What became of rows: their format and stored forms, columns that were ignored, and notes."""

    def __init__(self, rows: tuple[Row, ...], columns: Mapping[str, str] | None, are_strings: bool) -> None:
        self.ignored: list[str] = []
        findings = Findings(self.ignored.append)
        reader = RowReader(columns or {}, findings)
        self.format = str(reader.begin(rows[0], are_strings=are_strings))
        self.rows: list[CanonicalRow] = [reader.read(row, line) for line, row in enumerate(rows, 1)]
        reader.finish()
        self.notes = findings.sentences()

    @property
    def said(self) -> list[tuple[str, str]]:
        """Role and content of the messages of the last row."""
        return [(str(message.role), message.content) for message in self.rows[-1].messages or ()]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the last row, with all that they have."""
        return [message_form(message) for message in self.rows[-1].messages or ()]

    @property
    def rejected(self) -> str | None:
        """The worse answer of the last row."""
        rejected = self.rows[-1].rejected
        return None if rejected is None else rejected.content


def read(*rows: Row, columns: Mapping[str, str] | None = None, are_strings: bool = False) -> Read:
    return Read(rows, columns, are_strings)


def refusal(*rows: Row, columns: Mapping[str, str] | None = None, are_strings: bool = False) -> str:
    """Why the last of some rows is refused, of which the others are good."""
    if len(rows) > 1:
        read(*rows[:-1], columns=columns, are_strings=are_strings)
    with pytest.raises(InvalidDatasetError) as error:
        read(*rows, columns=columns, are_strings=are_strings)
    return error.value.message
