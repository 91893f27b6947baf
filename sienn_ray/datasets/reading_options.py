"""Options of reading a file, where its user gives them: encoding, separator, names of columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sienn_ray.datasets.columns import normalized_column, repeated_column
from sienn_ray.datasets.shapes.names import IGNORE
from sienn_ray.datasets.shapes.table import known_columns
from sienn_ray.datasets.text_encodings import codec_of
from sienn_ray.datasets.wording import listed, shown
from sienn_ray.errors import InvalidInputError

# Separators of CSV that are known, each with the names that it may be given by.
SEPARATORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {",": ("comma",), ";": ("semicolon",), "\t": ("tab", "\\t"), "|": ("pipe",)}
)
# Fields of a form, and options of the command, that make up `ReadingOptions`.
FIELDS = ("encoding", "separator", "columns")
MAX_COLUMNS = 100
MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """Options of reading a file; what isn't given is told from the file.

    Args:
        encoding: Encoding of the text, one of `text_encodings.ENCODINGS` or another name of it.
        separator: What is between the fields of a CSV file, one of `SEPARATORS` or its name.
        columns: Names that the service knows, by the names that the file has for them.

    Raises:
        InvalidInputError: A value is none of those that are known, or columns contradict each other.

    Example:
        >>> options = ReadingOptions(separator="semicolon", columns={"Frage": "question", "Antwort": "answer"})
        >>> options.separator, options.as_fields()["columns"]
        (';', {'Frage': 'question', 'Antwort': 'answer'})
    """

    encoding: str | None = None
    separator: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.encoding is not None:
            object.__setattr__(self, "encoding", codec_of(self.encoding))
        if self.separator is not None:
            object.__setattr__(self, "separator", _separator(self.separator))
        object.__setattr__(self, "columns", MappingProxyType(_checked_columns(self.columns)))

    def as_fields(self) -> dict[str, Any]:
        """Return those that were given, by name, fit to be stored as JSON."""
        given = {"encoding": self.encoding, "separator": self.separator, "columns": dict(self.columns)}
        return {name: value for name, value in given.items() if value}


def options_of(fields: Mapping[str, Sequence[str]]) -> ReadingOptions:
    """Read the options from the fields of a form, each with the values that were sent; an empty one says nothing.

    Args:
        fields: Values by the names of `FIELDS`; others are left alone. `columns` may come more than once.

    Raises:
        InvalidInputError: A value can't be understood, or isn't one that is known.
    """
    columns: dict[str, str] = {}
    for text in fields.get("columns", ()):
        for name, known in columns_of(text).items():
            if name in columns:
                raise InvalidInputError(f"columns: {shown(name)} is given more than once; name each column once")
            columns[name] = known
    return ReadingOptions(_only(fields, "encoding"), _only(fields, "separator"), columns)


def columns_of(text: str) -> dict[str, str]:
    """Read a mapping of columns from a JSON object, or from `name=name` pairs with commas or line breaks between.

    Raises:
        InvalidInputError: It is neither.

    Example:
        >>> columns_of('{"Frage": "question"}'), columns_of("Frage=question, Antwort=answer")
        ({'Frage': 'question'}, {'Frage': 'question', 'Antwort': 'answer'})
    """
    if text.lstrip().startswith("{"):
        return _columns_of_json(text)
    pairs = [pair for line in text.splitlines() for pair in line.split(",") if pair.strip()]
    columns: dict[str, str] = {}
    for pair in pairs:
        name, sign, known = pair.rpartition("=")
        if not sign or not name.strip() or not known.strip():
            raise InvalidInputError(
                f"columns: {shown(pair.strip())} is no pair of names; write a column of the file and the name it "
                'stands for, as in Frage=question,Antwort=answer or {"Frage": "question", "Antwort": "answer"}'
            )
        if name.strip() in columns:
            raise InvalidInputError(f"columns: {shown(name.strip())} is given more than once; name each column once")
        columns[name.strip()] = known.strip()
    return columns


def _columns_of_json(text: str) -> dict[str, str]:
    way_out = 'write it as in {"Frage": "question", "Antwort": "answer"}'
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise InvalidInputError(f"columns: {shown(text)} is no JSON object; {way_out}") from None
    if not all(isinstance(known, str) for _, known in pairs):
        raise InvalidInputError(f"columns: {shown(text)} names a column by something else than a string; {way_out}")
    columns = dict(pairs)
    if len(columns) < len(pairs):
        repeated = repeated_column([name for name, _ in pairs])
        raise InvalidInputError(f"columns: {repeated} is given more than once; name each column once")
    return columns


def _only(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = list(dict.fromkeys(value for value in fields.get(name, ()) if value))
    if len(values) > 1:
        raise InvalidInputError(f"{name}: more than one was given: {listed(values)}; give one")
    return values[0] if values else None


def _separator(text: str) -> str:
    for separator, names in SEPARATORS.items():
        if text == separator or text.strip().lower() in (separator, *names):
            return separator
    known = ", ".join(shown(each) if each.strip() else "'\\t'" for each in SEPARATORS)
    words = ", ".join(names[0] for names in SEPARATORS.values())
    raise InvalidInputError(f"separator: {shown(text)} isn't known; use one of {known}, or its name: {words}")


def _checked_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """A mapping to normalized names that are known, each of which has one column of the file."""
    if len(columns) > MAX_COLUMNS:
        raise InvalidInputError(f"columns: {len(columns)} names are too many; at most {MAX_COLUMNS} will do")
    for name in (*columns, *columns.values()):
        if len(name) > MAX_NAME_CHARS:
            raise InvalidInputError(f"columns: {shown(name)} has more than {MAX_NAME_CHARS} characters")
    checked = {name: normalized_column(known) for name, known in columns.items()}
    known_names = known_columns()
    for name, known in checked.items():
        if known not in known_names:
            turned = normalized_column(name) in known_names
            hint = f"; is it the other way round, {known}={normalized_column(name)}?" if turned else ""
            raise InvalidInputError(
                f"columns: {shown(known)}, which {shown(name)} is to stand for, isn't known{hint}; "
                f"known are {', '.join(sorted(known_names))}"
            )
    _check_single(checked)
    return checked


def _check_single(columns: Mapping[str, str]) -> None:
    if len({normalized_column(name) for name in columns}) < len(columns):
        raise InvalidInputError(
            f"columns: {repeated_column(columns)} is given more than once, leaving case and outer spaces aside"
        )
    read = [known for known in columns.values() if known != IGNORE]
    if len(set(read)) < len(read):
        raise InvalidInputError(f"columns: two columns are to be {repeated_column(read)}; choose one of them")
