"""Words for what is wrong with a field, which don't come from the library that checked it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a value has to be, by the library's kind of fault; the words fit behind "has to be" and may be joined by "or".
_KINDS = {
    "bool_type": "a valid boolean, true or false",
    "bool_parsing": "a valid boolean, true or false",
    "bytes_type": "text",
    "date_parsing": "a date",
    "date_type": "a date",
    "datetime_from_date_parsing": "a date with a time",
    "datetime_parsing": "a date with a time",
    "datetime_type": "a date with a time",
    "dict_type": "a valid object",
    "float_parsing": "a valid number",
    "float_type": "a valid number",
    "int_from_float": "a valid integer",
    "int_parsing": "a valid integer",
    "int_parsing_size": "an integer with fewer digits",
    "int_type": "a valid integer",
    "list_type": "a valid list",
    "mapping_type": "a valid object",
    "model_attributes_type": "a valid object",
    "model_type": "a valid object",
    "none_required": "null",
    "set_type": "a valid list",
    "string_type": "a valid string",
    "string_unicode": "a valid string",
    "timezone_aware": "a date with a time and an offset from UTC",
    "tuple_type": "a valid list",
    "url_parsing": "a valid URL",
    "url_type": "a valid URL",
    "uuid_parsing": "a valid UUID",
    "uuid_type": "a valid UUID",
}
_BOUNDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
    "too_short": ("at least", "min_length", "item"),
    "too_long": ("at most", "max_length", "item"),
}
_CHOICES = frozenset({"literal_error", "enum"})
_PREFIXES = ("Value error, ", "Assertion failed, ")


def is_of_another_kind(fault: Mapping[str, Any]) -> bool:
    """Return whether a value is nothing like what its field takes, rather than outside its limits."""
    return fault["type"] in _KINDS or fault["type"] in _CHOICES


def wanted(fault: Mapping[str, Any]) -> str | None:
    """Name what the value has to be, to stand behind "has to be"; None of a fault that isn't about that."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _CHOICES:
        return str(context["expected"])
    if kind in _BOUNDS and "variable" not in context:  # with it, the words say who may raise the bound
        return _BOUNDS[kind].format(**context)
    return _KINDS.get(kind)


def words_of(fault: Mapping[str, Any]) -> str:
    """Say what is wrong, without the field and the value.

    Args:
        fault: As Pydantic's `errors()` gives it.

    Example:
        >>> words_of({"type": "int_type", "msg": "Input should be a valid integer", "loc": ("n",), "input": "a"})
        'has to be a valid integer'
    """
    if (what := wanted(fault)) is not None:
        return f"has to be {what}"
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _LENGTHS:
        which, limit, unit = _LENGTHS[kind]
        number = context[limit]
        words = f"has to have {which} {number} {unit}{'' if number == 1 else 's'}"
        given = context.get("actual_length")
        return words if given is None or unit == "character" else f"{words}, and has {given}"
    words = str(fault["msg"])
    for prefix in _PREFIXES:
        words = words.removeprefix(prefix)
    return words.replace("Input should be", "has to be")
