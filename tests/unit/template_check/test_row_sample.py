"""Rows that a chat template may treat otherwise are among those that it is tried with, wherever they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets.schema import PARQUET_SCHEMA
from sienn_ray.storage import Storage
from sienn_ray.template_check.row_sample import MAX_GROUPS, sampled_rows, shape_of

ROLES = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}


def row(roles: str, *extras: dict[str, Any] | None, content: str = "x", number: int = 0) -> dict[str, Any]:
    """A row with these roles, by letters; `extras` are what its last messages have beside text."""
    messages = [{"role": ROLES[letter], "content": content, "extra": None} for letter in roles]
    for message, extra in zip(messages[len(messages) - len(extras) :], extras, strict=True):
        message["extra"] = None if extra is None else json.dumps(extra)
    return {"row": number, "line": number + 1, "messages": messages, "text": None}


CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (row("uauauauauaua"), row("uauauuaauaua")),
        (row("uauauauauaua"), row("uauauauauasa")),
        (row("ua", {"weight": 0}), row("ua", {"tool_calls": [CALL]})),
        (row("ua", {"reasoning_content": "r"}), row("ua", {"tool_calls": [CALL]})),
        (row("ua", {"tool_calls": [CALL]}), row("ua", {"tool_calls": [CALL, CALL]})),
        (row("ua"), row("ua", content=" ")),
        (row("ua"), row("ua", content="<think>r</think>x")),
    ],
)
def test_rows_that_a_template_may_treat_otherwise_have_other_shapes(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert shape_of(one) != shape_of(other)


def test_turns_that_alternate_have_one_shape() -> None:
    assert shape_of(row("uauaua")) == shape_of(row("ua" * 50, content="y"))
    assert shape_of(row("suaua")) == shape_of(row("s" + "ua" * 9))
    assert len({str(shape_of(row(roles))) for roles in ("ua", "uaua", "uuaua", "uauau", "suaua")}) == 5


def write(storage: Storage, rows: list[dict[str, Any]], rows_per_group: int) -> str:
    """Write rows in groups; returns their key."""
    with storage.writing("rows.parquet") as file, pq.ParquetWriter(file, PARQUET_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, PARQUET_SCHEMA), row_group_size=rows_per_group)
    return "rows.parquet"


@pytest.mark.parametrize("odd", [row("uuaa"), row("ua", {"tool_calls": [CALL]})])
def test_new_turns_in_any_row_group_are_found(tmp_path: Path, odd: dict[str, Any]) -> None:
    storage = Storage(f"file://{tmp_path}")
    num_rows = 10 * MAX_GROUPS * 4
    rows = [row("ua" if number % 2 else "uaua", number=number) for number in range(num_rows)]
    for place in (10 + 3, 130 + 7):
        rows[place] = {**odd, "row": place, "line": place + 1}
        key = write(storage, rows, 10)
        sample = list(sampled_rows(storage, key))
        assert [each["row"] for each in sample if each["messages"] == odd["messages"]] == [place]
        assert sample[-1]["row"] == place
        assert sample[-1]["messages"][0]["content"] == "x"
        assert len(sample) == 10 * MAX_GROUPS + 1
        rows[place] = row("ua", number=place)


def test_no_more_rows_are_read_once_it_is_over(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    key = write(storage, [row("ua", number=number) for number in range(300)], 10)
    for num_asked, num_rows in ((5, 5), (70, 60)):  # behind 60 rows, it looks for new turns
        answers = iter([False] * num_asked + [True])
        assert len(list(sampled_rows(storage, key, lambda: next(answers)))) == num_rows  # noqa: B023
        assert next(answers, None) is None
