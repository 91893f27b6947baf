"""Reader of rows: tells the shape of a dataset from its first row, and brings each row into its stored form."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat
from sienn_ray.datasets.shapes.detection import detect_shape, format_of
from sienn_ray.datasets.shapes.fields import Fields, is_empty
from sienn_ray.datasets.shapes.findings import Finding, Findings
from sienn_ray.datasets.shapes.layout import Columns, Layout, layout_of
from sienn_ray.datasets.shapes.names import BESIDE, Part
from sienn_ray.datasets.shapes.pairs import chat_messages_row, pair_row
from sienn_ray.datasets.shapes.plain_rows import PlainReader, plain_reader
from sienn_ray.datasets.shapes.preferences import compared_row
from sienn_ray.datasets.shapes.rendered_text import chat_mark
from sienn_ray.datasets.shapes.table import Shape
from sienn_ray.datasets.wording import MAX_SHOWN_CHARS, listed, shown
from sienn_ray.errors import InvalidDatasetError

# Rows of a JSON file may differ in their keys without end, and a layout holds the names of its row.
_MAX_LAYOUTS = 64
_MAX_KEYS = 64
_MAX_KEYS_CHARS = 4_096
_MAX_SHOWN = 100
_SPEAKER_KEYS = frozenset({"role", "from"})


class RowReader:
    """Reads the rows of one dataset.

    Args:
        columns: Names that are known, by the file's own where a user maps them.
        findings: Takes what its user should know.

    Attributes:
        format: The dataset's format; None before the first row.

    Example:
        >>> reader = RowReader({"Frage": "question"}, Findings(print))
        >>> row = {"Frage": "Why?", "answer": "So.", "id": 7}
        >>> reader.begin(row)
        <DatasetFormat.QUESTION_ANSWER: 'question-answer'>
        >>> [message.content for message in reader.read(row, 1).messages]
        id
        ['Why?', 'So.']
    """

    def __init__(self, columns: Mapping[str, str], findings: Findings) -> None:
        self._columns = Columns(columns)
        self._findings = findings
        self._shape: Shape | None = None
        self._are_strings = False
        self._first: tuple[str, ...] = ()
        self._layouts: dict[tuple[str, ...], tuple[Layout, PlainReader | None]] = {}
        self.format: DatasetFormat | None = None

    def begin(self, values: Mapping[str, Any], *, are_strings: bool = False) -> DatasetFormat:
        """Tell the dataset's format from its first row.

        Args:
            values: Values by column, as the file has them.
            are_strings: Whether all values of the file are strings, as in CSV, where messages are written as JSON.

        Raises:
            InvalidDatasetError: Its columns are none of the known shapes, or of more than one.
        """
        self._are_strings = are_strings
        self._first = tuple(islice(values, _MAX_SHOWN))
        names = self._columns.known_names(values)
        try:
            self._shape = detect_shape(names, self._columns.wanted)
        except InvalidDatasetError as error:
            if self._columns.missing:
                raise self._missing() from error
            raise InvalidDatasetError(error.message + _list_hint(values)) from error
        empty = {name for name in BESIDE[Part.LABEL] if name in names and is_empty(values[names[name]])}
        self.format = format_of(self._shape, names.keys() - empty)
        return self.format

    def read(self, values: Mapping[str, Any], place: int) -> CanonicalRow:
        """Check one row and bring it into its stored form.

        Args:
            values: Values by column, as the file has them.
            place: The row's line, or its number in an array.

        Raises:
            InvalidDatasetError: The row isn't what the first one's columns ask for. The error bears no line.
        """
        assert self._shape is not None  # nosec B101 # for the type checker
        self._findings.place = place
        keys = tuple(values)
        layout, read_plain = self._layouts.get(keys) or self._new_layout(self._shape, keys)
        if read_plain is not None and (row := read_plain(values)) is not None:
            return row
        fields = Fields(values, layout, self._findings, are_strings=self._are_strings)
        if layout.refused:
            fields.check_refused(str(self._shape))
        if Part.TEXT in layout.parts:
            return self._text_row(fields)
        if self._shape.format is DatasetFormat.PREFERENCE:
            return compared_row(fields)
        return chat_messages_row(fields) if Part.MESSAGES in layout.parts else pair_row(fields)

    def finish(self) -> None:
        """Check, behind the last row, that all columns which a user maps were there.

        Raises:
            InvalidDatasetError: One wasn't.
        """
        if self._columns.missing:
            raise self._missing()

    def _missing(self) -> InvalidDatasetError:
        return InvalidDatasetError(
            f"columns: the file has no column {listed(self._columns.missing)}; it has {listed(self._first)}"
        )

    def _new_layout(self, shape: Shape, keys: tuple[str, ...]) -> tuple[Layout, PlainReader | None]:
        is_labelled = self.format is DatasetFormat.UNPAIRED_PREFERENCE
        layout = layout_of(shape, self._columns, keys, is_labelled=is_labelled)
        for name in layout.ignored:
            self._findings.ignore(name)
        found = layout, plain_reader(layout)
        if len(self._layouts) < _MAX_LAYOUTS and len(keys) <= _MAX_KEYS and sum(map(len, keys)) <= _MAX_KEYS_CHARS:
            self._layouts[keys] = found
        return found

    def _text_row(self, fields: Fields) -> CanonicalRow:
        text = fields.text(Part.TEXT)
        if mark := chat_mark(text):
            self._findings.add(Finding.RENDERED, shown(mark))
        return CanonicalRow(text=text)


def _list_hint(values: Mapping[str, Any]) -> str:
    """What a list of objects may be that no name tells of: a conversation, or all rows of the file."""
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and len(key) <= MAX_SHOWN_CHARS:
            if value[0].keys() & _SPEAKER_KEYS:
                return f'; {shown(key)} looks like a conversation: columns={{"{key}": "messages"}}'
            return f"; if {shown(key)} is the list of rows, name the file .json"
    return ""
