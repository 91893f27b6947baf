"""Single values of a user's row, checked; errors say what is wrong with which one."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from sienn_ray.datasets.wording import kind_of, listed
from sienn_ray.errors import InvalidDatasetError

# Control, format, space, line and paragraph separator; halves of surrogate pairs are refused by themselves.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
# Characters of other categories that show nothing: fillers of Hangul and Khmer, the blank of braille, the grapheme
# joiner, and selectors of variants (Unicode's Default_Ignorable_Code_Point).
_BLANKS = frozenset(
    "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u034f\u180b\u180c\u180d\u180f"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)
_MAX_CODES = 4


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
    if value.isascii():
        return value
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
    if not is_visible(value):
        unseen = (
            "" if not value or value.isspace() else f", and has only characters that can't be seen ({_codes(value)})"
        )
        raise InvalidDatasetError(f"{what} must not be blank{unseen}; fill it in or remove the row")
    return value


def is_visible(text: str) -> bool:
    """Return whether a text has a character that can be seen.

    White space, control and format characters (zero-width ones, byte order marks, soft hyphens) can't be, nor can
    letters and symbols that are blank by their own definition, such as Hangul's fillers.
    """
    # Nearly all texts begin with such a character, and the last line takes ten times as long.
    if text and "!" <= text[0] <= "~":
        return True
    return any(unicodedata.category(char) not in _UNSEEN_CATEGORIES and char not in _BLANKS for char in text)


def _codes(text: str) -> str:
    chars = [char for char in dict.fromkeys(text) if not char.isspace()]
    return ", ".join(f"U+{ord(char):04X}" for char in chars[:_MAX_CODES]) + (", …" if len(chars) > _MAX_CODES else "")
