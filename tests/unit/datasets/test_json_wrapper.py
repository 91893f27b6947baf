"""Rows of JSON files whose list of rows is within an object."""

from __future__ import annotations

import json
from typing import Any

import ijson
import pytest

from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.utf8 import CHUNK_BYTES
from tests.unit.datasets.ingesting import fault, run

ROW = {"prompt": "a", "completion": "b"}
OTHER = {"prompt": "c", "completion": "d"}


@pytest.fixture(params=["yajl2_c", "python"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = pytest.importorskip(f"ijson.backends.{request.param}").basic_parse
    monkeypatch.setattr(ijson, "basic_parse", parse)


def prompts(content: Any) -> list[str]:
    _, rows = run(json.dumps(content), "d.json")
    assert [row["line"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["messages"][0]["content"] for row in rows]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "content",
    [
        {"data": [ROW, OTHER]},
        {"train": [ROW, OTHER]},
        {"Examples of ours": [ROW, OTHER]},
        {"version": "1.0", "meta": {"by": ["x", {"y": 1}]}, "data": [ROW, OTHER], "count": 2, "empty": []},
        # The hub's server of datasets.
        {
            "features": [{"feature_idx": 0, "name": "prompt", "type": {"dtype": "string"}}],
            "rows": [{"row_idx": index, "row": row, "truncated_cells": []} for index, row in enumerate([ROW, OTHER])],
            "num_rows_total": 2,
            "partial": False,
        },
        # pandas, by orient.
        {"columns": ["prompt", "completion"], "index": [0, 1], "data": [["a", "b"], ["c", "d"]]},
        {"schema": {"fields": [{"name": "prompt", "type": "string"}]}, "data": [{"index": 0, **ROW}, OTHER]},
    ],
)
def test_rows_within_an_object_are_read(content: Any) -> None:
    assert prompts(content) == ["a", "c"]


def test_where_the_rows_were_and_what_was_beside_them_is_said() -> None:
    content = {"version": "1.0", "meta": {"by": "x"}, "data": [{"id": 1, **ROW}], "tags": ["a"], "none": []}
    report, _ = run(json.dumps(content), "d.json")
    assert report.guessed["rows"] == "the list under 'data'"
    assert report.ignored_columns == ("version", "meta", "id", "tags", "none")


def test_conversations_of_rows_within_an_object_stay_conversations() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert prompts({"data": [{"messages": turns}]}) == ["a"]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"prompt": {"0": "a"}, "completion": {"0": "b"}},
            "the file is a table by columns, of which the first is 'prompt'",
        ),
        ({"prompt": ["a"], "completion": ["b"]}, "the file is a table by columns, of which the first is 'prompt'"),
        ({"0": ROW, "1": OTHER}, "the file is a table by numbers of its rows, of which the first is '0'"),
        (
            {"train": [ROW], "test": [OTHER]},
            "after row 1: the file has two lists of rows, 'train' and 'test'; upload each as its own file",
        ),
        ({"data": [["a", "b"]]}, "the rows in 'data' are lists, and no list 'columns' before them names their values"),
        ({"columns": ["prompt", 1], "data": [["a", "b"]]}, "'columns' must be a list of at most 1,000 names"),
        ({"columns": ["prompt", "prompt"], "data": [["a", "b"]]}, "'columns' has a name more than once"),
        ({"messages": [{"role": "user", "content": "a"}]}, "the last message must be the assistant's, got user"),
        ({"data": {"train": [ROW]}}, "the file must be an array of objects, got an object"),
        ({}, "the file must be an array of objects, got an object; put the rows in [...]"),
        ({"data": []}, "the file must be an array of objects, got an object; put the rows in [...]"),
        ({"data": [ROW, "x"]}, "row 2: must be an object, got a string"),
        ({"data": [ROW, {"prompt": "a"}]}, "row 2: column 'completion' is missing"),
        (
            {"columns": list(ROW), "data": [["a", "b"], ["a"]]},
            "row 2: must be a list of 2 values, one for each of 'prompt', ",
        ),
        ({"columns": list(ROW), "data": [["a", "b"], {}]}, "row 2: must be a list of 2 values"),
        (
            {"rows": [{"row_idx": 0, "row": ROW, "truncated_cells": ["prompt"]}]},
            "row 1: the server that the file is from has cut the row's values; download the dataset's own files",
        ),
    ],
)
def test_what_is_no_list_of_rows_is_refused_with_the_way_out(content: Any, message: str) -> None:
    found = fault(json.dumps(content), "d.json").message
    assert message.removeprefix("after row 1: ") in found
    if "table by" in found:
        assert "orient='records', lines=True" in found


@pytest.mark.usefixtures("backend")
def test_an_object_that_is_cut_short_is_told() -> None:
    assert "was the file cut short?" in fault(json.dumps({"data": [ROW, OTHER]})[:-2], "d.json").message
    assert "was the file cut short?" in fault('{"data": [', "d.json").message


def test_what_stands_before_the_rows_may_be_longer_than_a_row() -> None:
    index = list(range(3 * CHUNK_BYTES // 4))
    content = {"columns": list(ROW), "index": index, "data": [["a", "b"]]}
    _, rows = run(json.dumps(content), "d.json", max_row_bytes=1_000)
    assert len(rows) == 1


def test_a_long_value_beside_the_rows_is_not_held() -> None:
    content = {"about": "x" * 4 * CHUNK_BYTES, "data": [ROW]}
    assert "longer than 1,000 bytes" in fault(json.dumps(content), "d.json", max_row_bytes=1_000).message


TOOLS = [{"type": "function", "function": {"name": "f"}}]
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.usefixtures("backend")
def test_what_all_rows_share_goes_to_each_that_has_none() -> None:
    shared = {"system": "Be X", "tools": TOOLS, "chat_template_kwargs": {"deep": {"er": [1]}, "enable_thinking": False}}
    own = {"system_prompt": "Be Y", "tools": [], "messages": TURNS}
    report, rows = run(
        json.dumps({**shared, "data": [{"messages": TURNS}, own, {"messages": TURNS, "system": None}]}), "d.json"
    )
    assert [row["messages"][0]["content"] for row in rows] == ["Be X", "Be Y", "Be X"]
    assert [row.get("tools") for row in rows] == [json.dumps(TOOLS), None, json.dumps(TOOLS)]
    assert {row["chat_template_kwargs"] for row in rows} == {json.dumps(shared["chat_template_kwargs"])}
    assert report.ignored_columns == ()
    assert report.notes[0] == "'system' beside the rows is read as that of each row which has none"


def test_a_label_that_all_rows_share_is_each_one_s() -> None:
    report, rows = run(json.dumps({"label": False, "data": [ROW, {**ROW, "label": True}]}), "d.json")
    assert (report.format, [row["label"] for row in rows]) == ("unpaired-preference", [False, True])


def test_what_all_rows_share_is_left_out_where_its_user_says_so() -> None:
    options = ReadingOptions(columns={"system": "ignore"})
    report, rows = run(json.dumps({"system": "Be X", "data": [ROW]}), "d.json", options=options)
    assert [message["content"] for message in rows[0]["messages"]] == ["a", "b"]
    assert report.ignored_columns == ("system",)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"data": [ROW], "system": "Be X"},
            "'system' would change what is learned, and stands behind the rows; put it",
        ),
        ({"data": [ROW], "tools": TOOLS}, "'tools' would change what is learned, and stands behind the rows"),
        ({"data": [ROW], "chat_template_kwargs": {"a": 1}}, "'chat_template_kwargs' would change what is learned, and"),
        (
            {"weight": 0.5, "data": [ROW]},
            "'weight' beside the rows would change what is learned, and can't be read there",
        ),
        (
            {"system": "a", "system_prompt": "b", "data": [ROW]},
            "'system_prompt' beside the rows comes twice, under one",
        ),
        (
            {"system": "x" * 40_000, "data": [ROW]},
            "'system' beside the rows has too many characters to be written with",
        ),
        ({"system": {"a": "b"}, "data": [ROW]}, "row 1: column 'system' must be a string, got an object"),
    ],
)
def test_what_would_change_what_is_learned_is_not_dropped(content: Any, message: str) -> None:
    assert message in fault(json.dumps(content), "d.json").message


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_nothing_behind_the_rows_says_nothing(nothing: object) -> None:
    assert prompts({"data": [ROW], "system": nothing, "tools": nothing, "weight": nothing}) == ["a"]
