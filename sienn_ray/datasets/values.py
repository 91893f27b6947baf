"""Single values of a user's row, checked; errors say what is wrong with which one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.datasets.wording import kind_of, listed
from sienn_ray.errors import InvalidDatasetError


def column_value(row: Mapping[str, Any], column: str) -> Any:
    """Return a row's value in a column, whatever it is.

    Raises:
        InvalidDatasetError: The row lacks the column.
    """
    if column not in row:
        raise InvalidDatasetError(f"column '{column}' is missing; the row has {listed(row)}")
    return row[column]


def filled_string(row: Mapping[str, Any], column: str) -> str:
    """A column's text.

    Raises:
        InvalidDatasetError: It isn't there, is no string, or is blank.
    """
    return filled(string(column_value(row, column), f"column '{column}'"), f"column '{column}'")


def optional_string(row: Mapping[str, Any], column: str) -> str:
    """A column's text, empty where the row has none.

    Raises:
        InvalidDatasetError: It is something else than a string.
    """
    found = row.get(column)
    return "" if found is None else string(found, f"column '{column}'")


def string(value: object, what: str) -> str:
    """Check that a value is a string that UTF-8 can hold; `what` names it in the error.

    Raises:
        InvalidDatasetError: It isn't.
    """
    if not isinstance(value, str):
        raise InvalidDatasetError(f"{what} must be a string, got {kind_of(value)}")
    # JSON can escape half of a surrogate pair, which no UTF-8 file and no tokenizer can hold.
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(value[error.start]):04x}"
        raise InvalidDatasetError(f"{what} has half of a surrogate pair, {code}, which is not a character") from error
    return value


def filled(value: str, what: str) -> str:
    """Check that a string isn't blank; `what` names it in the error.

    Raises:
        InvalidDatasetError: It is.
    """
    if not value or value.isspace():
        raise InvalidDatasetError(f"{what} must not be blank; fill it in or remove the row")
    return value
