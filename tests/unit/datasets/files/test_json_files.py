"""JSON in any layout, whatever the file's name says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.datasets.ingesting import fault, run, turn

ROWS = [{"prompt": "When, {and} [where]?", "completion": 'At "six", \\ here.'}, {"prompt": "Why?", "completion": "So."}]
SPREAD = "\n".join(json.dumps(row, indent=2) for row in ROWS)
LINES = "\n".join(json.dumps(row) for row in ROWS)
ARRAY = json.dumps(ROWS)


def texts(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows]


EXPECTED = [(row["prompt"], row["completion"]) for row in ROWS]


@pytest.mark.parametrize("filename", ["d.json", "d.jsonl", "d.ndjson", "d.jsonlines", "d.txt", "d.csv", "d.jsonl.txt"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n \n"])
@pytest.mark.parametrize(
    ("content", "container"),
    [
        (LINES, "JSON lines"),
        (ARRAY, "JSON array"),
        (json.dumps(ROWS, indent=4), "JSON array"),
        ("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n", "JSON array"),
        (SPREAD, "JSON objects over several lines"),
        (SPREAD.replace("}\n{", "},\n{"), "JSON objects over several lines"),
        (SPREAD.replace("}\n{", "}, {"), "JSON objects over several lines"),
        (SPREAD.replace("}\n{", "}{"), "JSON objects over several lines"),
        (LINES.replace("\n", " "), "JSON objects over several lines"),
        (SPREAD.replace("\n", "\r\n"), "JSON objects over several lines"),
    ],
)
def test_layout_is_told_from_the_content(filename: str, mark: str, content: str, container: str) -> None:
    report, rows = run(mark + content, filename)
    assert texts(rows) == EXPECTED
    usual = {"d.json": "JSON array", "d.txt": ""}.get(filename, "" if filename == "d.csv" else "JSON lines")
    assert report.guessed == ({} if container == usual else {"container": container})


def test_rows_of_spread_objects_have_the_lines_where_they_begin() -> None:
    assert run(SPREAD, "d.jsonl")[1] == [turn(0, 1, *EXPECTED[0]), turn(1, 5, *EXPECTED[1])]


def test_lines_may_end_with_commas() -> None:
    report, rows = run(LINES.replace("}\n", "},\r\n") + " ,\n,\n", "d.jsonl")
    assert texts(rows) == EXPECTED[:2]
    assert report.notes == ("lines end with commas, which were left out",)


def test_files_that_were_put_together_keep_their_marks_in_the_middle() -> None:
    report, rows = run("\ufeff" + LINES.replace("\n", "\r\n\ufeff"), "d.jsonl")
    assert texts(rows) == EXPECTED
    assert report.notes == ("byte order marks in the middle of the file were left out",)
    assert texts(run("\ufeff" + SPREAD.replace("}\n{", "}\n\ufeff{"), "d.jsonl")[1]) == EXPECTED


@pytest.mark.parametrize("content", [LINES, SPREAD, ARRAY])
def test_lines_may_end_with_carriage_returns_alone(content: str) -> None:
    report, rows = run(content.replace("\n", "\r") + "\r", "d.jsonl")
    assert texts(rows) == EXPECTED
    assert report.guessed["line_ends"] == "carriage returns"


def test_one_row_in_a_file_that_is_called_json_is_a_row() -> None:
    assert texts(run(json.dumps(ROWS[0]), "d.json")[1]) == EXPECTED[:1]
    assert texts(run(json.dumps(ROWS[0], indent=1), "d.json")[1]) == EXPECTED[:1]


def test_rows_of_csv_in_a_file_that_is_called_jsonl_are_rows() -> None:
    report, rows = run("prompt;completion\na;b\n", "d.jsonl")
    assert texts(rows) == [("a", "b")]
    assert report.guessed == {"container": "CSV", "separator": ";"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{\n "text": "a"\n}\n{\n "text": oops\n}\n{\n "text": "b"\n}',
            "line 5: invalid JSON at column 10: Expecting value",
        ),
        (
            '{\n "text": "a"\n}\nand\n{\n "text": "b"\n}',
            "line 4: 'and' stands outside of the objects; each row must be",
        ),
        ('{\n "text": "a"\n}\n[1]\n', "line 4: '[' stands outside of the objects"),
        (
            '{\n "text": "a"\n}\n{\n "text": "b"\n',
            "line 4: the object that begins here is never closed; was the file cut",
        ),
        ('{\n "text": "a"\n}\n{\n "text": "a", "text": "b"\n}', "line 4: the key 'text' comes more than once"),
        ('{\n "text": "a"\n}\n{\n "text": ""\n}', "line 4: column 'text' must not be blank"),
    ],
)
def test_faults_in_spread_objects_have_their_lines(content: str, message: str) -> None:
    assert fault(content, "d.jsonl").message.startswith(message)


@pytest.mark.parametrize("string", ['"xx', '"x\\', '"' + '\\"' * 100, '"x\\\\\\"'])
def test_string_that_is_never_closed_is_the_fault_of_its_own_object(string: str) -> None:
    content = f'{{\n"text": "a"}}\n{{"text": {string}}}\n{{"text": \n"b"}}\n{{"text": "c\\\\"}}'
    refusal = fault(content, "d.jsonl").message
    assert refusal.startswith("line 3: ")
    assert ";" not in refusal or "line 4" not in refusal


def test_object_that_never_ends_is_refused_in_bounded_memory() -> None:
    content = '{\n"text": "a"\n}\n{\n' + '"x": "y",\n' * 1_000
    message = fault(content, "d.jsonl", max_row_bytes=1_000).message
    assert message == "line 4: the object that begins here is longer than 1,000 bytes; is a bracket left open?"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("{'text': 'b'}", "strings have double quotes in JSON; from Python, write rows by json.dumps(row)"),
        ('{"text": None}', "JSON writes null, true and false; from Python, write rows by json.dumps(row)"),
        ('{"text": "b", "ok": True}', "JSON writes null, true and false"),
        ("// b", "JSON has no comments; remove them"),
        ('{"text": "b"} # checked', "JSON has no comments; remove them"),
        ('{"text": "b",}', "JSON has no comma behind the last value; remove it"),
        ("{\u201ctext\u201d: \u201cb\u201d}", "strings have straight double quotes in JSON, and no typographic ones"),
        ('{"text": "what is a "b" here"}', 'a quote within a string is written \\" in JSON'),
        ('{"text": "a\tb"}', "a line break within a string is written \\n in JSON, and a tab \\t"),
        ('{"text": "C:\\dir"}', "a backslash is written \\\\ in JSON"),
        ('{"text": "b', "the line ends within a string"),
    ],
)
def test_usual_mistakes_have_their_way_out(line: str, hint: str) -> None:
    message = fault('{"text": "a"}\n' + line, "d.jsonl").message
    assert message.startswith("line 2: invalid JSON at column ")
    assert hint in message


def test_a_list_on_each_line_is_one_cause() -> None:
    line = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]\n'
    message = fault(line * 50, "d.jsonl").message
    assert message == (
        'line 1: each line must be a JSON object, got a list; name what it is, as in {"messages": [...]} '
        "(the same in 50 rows, from the first one on)"
    )
    mended = "".join(f'{{"messages": {each}}}\n' for each in line.splitlines() * 50)
    assert run(mended, "d.jsonl")[0].num_rows == 50
