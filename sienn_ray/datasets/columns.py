"""Columns of a user's file: how their names compare, and which format they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, assert_never

from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.datasets.wording import listed, shown
from sienn_ray.errors import InvalidDatasetError

_ACCEPTED = (
    "instruction,response; instruction,input,response; instruction,input,output (input is optional); "
    "prompt,completion; question,answer; prompt,chosen,rejected; messages; text"
)


def detect_format(columns: Collection[str]) -> DatasetFormat:
    """Tell a dataset's format from its columns.

    Names match exactly, but for case and for white space at either end. Columns beyond those of the format are ignored,
    and `text` counts only where nothing else fits.

    Raises:
        InvalidDatasetError: The columns fit no format, or more than one.
    """
    names = {normalized_column(column) for column in columns}
    fits = [fmt for fmt in DatasetFormat if names.issuperset(required_columns(fmt))]
    if DatasetFormat.INSTRUCTION_INPUT_RESPONSE in fits:
        fits.remove(DatasetFormat.INSTRUCTION_RESPONSE)
    if len(fits) > 1 and DatasetFormat.TEXT in fits:
        fits.remove(DatasetFormat.TEXT)  # many sets (Alpaca's own) carry the rendered row as `text` beside its parts
    if not fits:
        raise InvalidDatasetError(f"unknown columns: found {listed(columns)}; accepted column sets: {_ACCEPTED}")
    if len(fits) > 1:
        raise InvalidDatasetError(
            f"ambiguous columns: found {listed(columns)}, which fits the formats {', '.join(fits)}; "
            f"keep the columns of one; accepted column sets: {_ACCEPTED}"
        )
    return fits[0]


def required_columns(dataset_format: DatasetFormat) -> tuple[str, ...]:
    """Return the columns that make a format."""
    match dataset_format:
        case DatasetFormat.INSTRUCTION_RESPONSE:
            return ("instruction", "response")
        case DatasetFormat.ALPACA:
            return ("instruction", "output")
        case DatasetFormat.INSTRUCTION_INPUT_RESPONSE:
            return ("instruction", "input", "response")
        case DatasetFormat.PROMPT_COMPLETION:
            return ("prompt", "completion")
        case DatasetFormat.QUESTION_ANSWER:
            return ("question", "answer")
        case DatasetFormat.PREFERENCE:
            return ("prompt", "chosen", "rejected")
        case DatasetFormat.CHAT:
            return ("messages",)
        case DatasetFormat.TEXT:
            return ("text",)
        case _:
            assert_never(dataset_format)


def known_columns() -> frozenset[str]:
    """Return all names of columns that some format reads, normalized."""
    return frozenset({"input"}.union(*(required_columns(fmt) for fmt in DatasetFormat)))


def normalized_column(name: str) -> str:
    """A column's name as names are compared: stripped and in lower case."""
    return name.strip().lower()


def by_normalized_column(raw_row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's values by their columns' normalized names.

    Raises:
        InvalidDatasetError: Two columns have the same one.
    """
    row = {normalized_column(name): value for name, value in raw_row.items()}
    if len(row) < len(raw_row):
        raise InvalidDatasetError(
            f"two columns have the same name, leaving case and outer spaces aside: {repeated_column(raw_row)}"
        )
    return row


def repeated_column(names: Collection[str]) -> str:
    """The first name in `names` that came before, for an error message; "none" if all differ."""
    seen: set[str] = set()
    for name in names:
        if normalized_column(name) in seen:
            return shown(name)
        seen.add(normalized_column(name))
    return "none"


def empty_columns(names: Sequence[str], raw_row: Mapping[str, Any]) -> list[int]:
    """Return which of the columns `names` hold nothing in a row: null, nothing but white space, or not there at all."""
    try:
        values = [raw_row[name] for name in names]
    except KeyError:  # rows of a JSON file may lack a column, or write it with other case or spaces
        row = {normalized_column(name): value for name, value in raw_row.items()}
        values = [row.get(normalized_column(name)) for name in names]
    return [
        index
        for index, value in enumerate(values)
        if value is None or (isinstance(value, str) and (not value or value.isspace()))
    ]
