"""Layouts of JSON in a file, told by its beginning and not by its name."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from sienn_ray.datasets.files.extensions import Container
from sienn_ray.datasets.files.known_columns import are_known
from sienn_ray.datasets.reading_options import ReadingOptions

_DECODER = json.JSONDecoder()


class JsonLayout(StrEnum):
    """A layout of rows in a JSON file."""

    LINES = "JSON lines"
    ARRAY = "JSON array"
    SPREAD = "JSON objects over several lines"


def layout_of(head: bytes, *, is_whole: bool, container: Container, options: ReadingOptions) -> JsonLayout:
    """Tell the layout of a JSON file.

    Args:
        head: Its first bytes, in UTF-8.
        is_whole: Whether that is all of it.
        container: What its name says.
        options: Its columns are known names.
    """
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if not text.startswith(("[", "{")):
        return JsonLayout.ARRAY if container is Container.JSON else JsonLayout.LINES
    line, _, rest = text.partition("\n")
    has_whole_line = bool(rest) or is_whole
    first, end = _value(line.rstrip().rstrip(",") if has_whole_line else text)
    if text.startswith("["):
        # A list on each line is no array of rows; what is wrong with it is told line by line.
        is_list_a_line = has_whole_line and isinstance(first, list) and rest.strip() and end == len(line.rstrip(", \r"))
        return JsonLayout.LINES if is_list_a_line and container is Container.JSON_LINES else JsonLayout.ARRAY
    if isinstance(first, dict) and has_whole_line and end == len(line.rstrip().rstrip(",")):
        is_single = is_whole and not rest.strip()
        return JsonLayout.ARRAY if is_single and _wraps_rows(first, container, options) else JsonLayout.LINES
    return _layout_over_lines(text, is_whole=is_whole, container=container, options=options)


def _layout_over_lines(text: str, *, is_whole: bool, container: Container, options: ReadingOptions) -> JsonLayout:
    """Tell the layout of a file whose first line isn't one whole object."""
    first, end = _value(text)
    if isinstance(first, dict):
        is_single = is_whole and not text[end:].strip(" \t\r\n,")
        return JsonLayout.ARRAY if is_single and _wraps_rows(first, container, options) else JsonLayout.SPREAD
    line, _, rest = text.partition("\n")
    if container is Container.JSON and not (is_whole and rest.strip()):
        return JsonLayout.ARRAY  # one object of more than the beginning, or cut short: rows are within it
    is_spread = line.strip() == "{"
    return JsonLayout.SPREAD if is_spread else JsonLayout.LINES


def _wraps_rows(value: dict[str, Any], container: Container, options: ReadingOptions) -> bool:
    """Return whether the only object of a file isn't a row; one that is called JSON may have rows within it."""
    if container is not Container.JSON:
        return False
    if all(
        isinstance(each, dict) or (isinstance(each, list) and not _is_conversation(each)) for each in value.values()
    ):
        return True  # a table by columns
    return not are_known(value, options)


def _is_conversation(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], dict) and not value[0].keys().isdisjoint(("role", "from"))


def _value(text: str) -> tuple[Any, int]:
    """The JSON value at the beginning of a text, and where it ends; None where there is no whole one."""
    try:
        return _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, 0
