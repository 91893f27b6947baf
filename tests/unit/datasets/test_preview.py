from __future__ import annotations

import json
from typing import Any

import pytest

from sienn_ray.datasets.preview import MAX_ITEMS, MAX_ROW_CHARS, MAX_STRING_CHARS, preview_row, preview_string


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, {}),
        ({"a": "b", "n": 1, "f": 0.5, "t": True, "none": None}, {"a": "b", "n": 1, "f": 0.5, "t": True, "none": None}),
        ({"a": "x" * 501}, {"a": "x" * 500 + "…"}),
        ({"x" * 501: 1}, {"x" * 500 + "…": 1}),
        ({"a": list(range(200))}, {"a": list(range(MAX_ITEMS))}),
        ({"a": [[[[[[[[1]]]]]]]]}, {"a": [[[[[["…"]]]]]]}),
        ({"a": {"b": {"c": "\ud800\0"}}}, {"a": {"b": {"c": "?\N{REPLACEMENT CHARACTER}"}}}),
    ],
)
def test_row(values: dict[str, Any], shown: dict[str, Any]) -> None:
    assert preview_row(values) == shown


@pytest.mark.parametrize(
    "values",
    [
        {f"column {number}": "x" * 10_000 for number in range(1_000)},
        {"a": [["x" * 400] * 100] * 100},
        {"a": [[[[[0] * 100] * 100] * 100] * 100]},
        {"a": [[{}] * 100] * 100},
        {"a": [10**4_000] * 100},
    ],
)
def test_whole_row_is_bounded(values: dict[str, Any]) -> None:
    assert len(json.dumps(preview_row(values))) < MAX_ROW_CHARS + 5_000


def test_first_columns_are_shown_whole() -> None:
    shown = preview_row({f"column {number}": "x" * 100 for number in range(1_000)})
    assert len(shown) > 50
    assert set(shown.values()) == {"x" * 100}


def test_string_can_be_stored_anywhere() -> None:
    assert preview_string("a" * MAX_STRING_CHARS) == "a" * MAX_STRING_CHARS
    preview_string("\ud800\0🦙" * 1_000).encode()
