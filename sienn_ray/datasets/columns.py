"""Columns of a user's file: how their names compare, and which of them are empty."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sienn_ray.datasets.wording import shown


def normalized_column(name: str) -> str:
    """A column's name as names are compared: stripped and in lower case."""
    return name.strip().lower()


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
