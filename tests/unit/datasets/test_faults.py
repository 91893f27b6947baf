"""What the report on a bad file says."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from sienn_ray.datasets.faults import MAX_MESSAGE_CHARS, MAX_ROW_FAULTS, RowFault
from sienn_ray.datasets.ingest import MAX_BAD_ROWS, Inspection, ingest, inspect
from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.errors import InvalidDatasetError


def look(content: bytes | str, filename: str, **options: Any) -> Inspection:
    return inspect(io.BytesIO(content.encode() if isinstance(content, str) else content), filename, **options)


def refusal(content: bytes | str, filename: str) -> InvalidDatasetError:
    with pytest.raises(InvalidDatasetError) as error:
        ingest(io.BytesIO(content.encode() if isinstance(content, str) else content), filename, io.BytesIO())
    return error.value


def starts(inspection: Inspection, width: int) -> list[tuple[int | None, str]]:
    return [(fault.line, fault.message[:width]) for fault in inspection.faults]


def test_good_file_has_no_faults() -> None:
    assert look("text\na\nb\n", "d.csv") == Inspection(
        format=DatasetFormat.TEXT,
        columns=("text",),
        num_rows=2,
        num_bad_rows=0,
        faults=(),
        is_complete=True,
        preview=[{"text": "a"}, {"text": "b"}],
    )


def test_bad_rows_of_csv_are_listed_with_their_lines() -> None:
    content = 'prompt,completion\na,b\nc\n"d\nd",\n\n,e\nf,g\n"h"x,i\nj\rk,l\nm,n,o\np,q\n'
    inspection = look(content, "d.csv")
    assert starts(inspection, 42) == [
        (3, "line 3: the row has 1 fields, but the head"),
        (4, "line 4: column 'completion' must not be bl"),
        (7, "line 7: column 'prompt' must not be blank;"),
        (9, "line 9: broken CSV: ',' expected after '\"'"),
        (10, "line 10: broken CSV: a carriage return sta"),
        (11, "line 11: the row has 3 fields, but the hea"),
    ]
    assert (inspection.num_rows, inspection.num_bad_rows, inspection.is_complete) == (9, 6, True)
    assert inspection.preview == [
        {"prompt": "a", "completion": "b"},
        {"prompt": "f", "completion": "g"},
        {"prompt": "p", "completion": "q"},
    ]


def test_bad_rows_of_jsonl_are_listed_with_their_lines() -> None:
    lines = [
        "{broken",
        '{"text": "a"}',
        "[]",
        '{"text": 5}',
        "",
        '{"text": "b", "text": "c"}',
        '{"text": NaN}',
        '{"text": ' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"txt": "d"}',
        '{"text": "e"}',
    ]
    inspection = look("\n".join(lines), "d.jsonl")
    assert starts(inspection, 30) == [
        (1, "line 1: invalid JSON at column"),
        (3, "line 3: each line must be a JS"),
        (4, "line 4: column 'text' must be "),
        (6, "line 6: the key 'text' comes m"),
        (7, "line 7: NaN is not JSON; write"),
        (8, "line 8: nested deeper than 32 "),
        (9, "line 9: column 'text' is missi"),
    ]
    assert (inspection.num_rows, inspection.num_bad_rows, inspection.is_complete) == (9, 7, True)
    assert (inspection.format, inspection.columns) == (DatasetFormat.TEXT, ("text",))
    assert inspection.preview == [{"text": "a"}, {"text": "e"}]


def test_bad_rows_of_a_json_array_are_listed_with_their_numbers() -> None:
    rows = [
        "3",
        '{"text": "a"}',
        '[{"text": "b"}]',
        '{"text": "c", "n": [{"m": 1, "m": [2]}], "o": {"p": [3]}}',
        '{"text": "d", "n": ' + "[" * 10_000 + "]" * 10_000 + ', "o": {}}',
        '{"text": " "}',
        "null",
        '{"text": "e"}',
    ]
    inspection = look(f"[{','.join(rows)}]", "d.json")
    assert starts(inspection, 30) == [
        (1, "row 1: must be an object, got "),
        (3, "row 3: must be an object, got "),
        (4, "row 4: the key 'm' comes more "),
        (5, "row 5: nested deeper than 32 l"),
        (6, "row 6: column 'text' must not "),
        (7, "row 7: must be an object, got "),
    ]
    assert (inspection.num_rows, inspection.num_bad_rows, inspection.is_complete) == (8, 6, True)
    assert inspection.preview == [{"text": "a"}, {"text": "e"}]


@pytest.mark.parametrize(
    ("filename", "content", "line", "message", "num_rows", "num_bad_rows"),
    [
        ("d.csv", b'text\na\n""\nb\xff\n', 4, "line 4: byte 0xff at offset 11 is not UTF-8", 2, 1),
        ("d.csv", b'text\na\n""\nb\0\n', 4, "line 4: byte 0x00 at offset 11 is not text", 2, 1),
        ("d.csv", b'text\na\n""\n"b\n', 4, "line 4: broken CSV: a quote opened in this row is never closed", 2, 1),
        ("d.csv", b'text\na\n""\n' + b"b" * 200, 4, "line 4: the line is longer than 100 bytes", 2, 1),
        ("d.jsonl", b'{"text": "a"}\n{}\n{"text": "' + b"b" * 200, 3, "line 3: the line is longer than 100", 2, 1),
        ("d.json", b'[{"text": "a"}, 3, {"text": "b"', 3, "row 3: the JSON ends before the array is closed", 2, 1),
        ("d.json", b'[{"text": "a"}, 3} {"text": "b"}]', None, "after row 2: invalid JSON", 2, 1),
        ("d.json", b'[{"text": "a"}, {"text": "b", "text": [[', 2, "row 2: the JSON ends before", 2, 1),
        ("d.csv", b"PK\x03\x04", 1, "line 1: the content is a ZIP archive", 0, 0),
        ("d.csv", b"a,b\nc,d\n", None, "unknown columns: found 'a', 'b'; accepted", 0, 0),
        ("d.jsonl", b'3\n{"a": 1}\n{"text": "b"}', None, "unknown columns: found 'a'; accepted", 1, 1),
        ("d.xlsx", b"text\na\n", None, "the extension '.xlsx' is not accepted", 0, 0),
        ("d.csv", b"", None, "the file is empty", 0, 0),
        ("d.csv", b"text,text\na,b\n", 1, "line 1: the header has the column 'text' more than once", 0, 0),
        ("d.csv", b'"text"x\na\n', 1, "line 1: broken CSV", 0, 0),
    ],
)
def test_what_ends_the_reading_is_the_last_fault(
    filename: str, content: bytes, line: int | None, message: str, num_rows: int, num_bad_rows: int
) -> None:
    inspection = look(content, filename, max_row_bytes=100)
    last = inspection.faults[-1]
    assert last.line == line
    assert last.message.startswith(message)
    assert (inspection.num_rows, inspection.num_bad_rows) == (num_rows, num_bad_rows)
    assert len(inspection.faults) == num_bad_rows + 1
    assert not inspection.is_complete


@pytest.mark.parametrize(("filename", "content"), [("d.csv", "text\n\n"), ("d.json", "[]"), ("d.jsonl", "\n")])
def test_file_without_rows_was_read_to_its_end(filename: str, content: str) -> None:
    inspection = look(content, filename)
    assert inspection.faults == (RowFault(None, "the file has no rows; at least one is needed"),)
    assert inspection.is_complete


def test_only_the_first_faults_are_kept_and_all_are_counted() -> None:
    inspection = look("text\na\n" + ",\n" * 50_000 + "b\n", "d.csv")
    assert [fault.line for fault in inspection.faults] == list(range(3, MAX_ROW_FAULTS + 3))
    assert (inspection.num_rows, inspection.num_bad_rows) == (50_002, 50_000)


def test_reading_ends_after_very_many_bad_rows() -> None:
    inspection = look("text\n" + ",\n" * (MAX_BAD_ROWS + 1_000), "d.csv")
    assert (inspection.num_bad_rows, inspection.is_complete) == (MAX_BAD_ROWS, False)
    assert inspection.faults[-1] == RowFault(None, "the reading ended after 100,000 bad rows")


def test_end_comes_behind_the_rows_that_are_kept() -> None:
    inspection = look(b"text\na\n" + b",\n" * 49 + b"\xff", "d.csv")
    assert len(inspection.faults) == MAX_ROW_FAULTS + 1
    assert inspection.faults[-1].message.startswith("line 52: byte 0xff")


def test_messages_are_bounded() -> None:
    row = {"\U000e0001" * 40 + str(n): 0 for n in range(20)}
    content = json.dumps({"text": "a"}) + "\n" + (json.dumps(row) + "\n") * 50
    assert all(len(fault.message) <= MAX_MESSAGE_CHARS + 1 for fault in look(content, "d.jsonl").faults)
    assert len(refusal(content, "d.jsonl").message) < 4_000


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("text\n,\n", ["line 2: "]),
        ("text\n,\na\n,\n", ["line 2: ", "line 4: "]),
        ("text\n" + ",\n" * 4, ["line 2: ", "line 3: ", "line 4: ", "line 5: "]),
        (
            "text\n,\na\n" + ",\n" * 5,
            ["line 2: ", "line 4: ", "line 5: ", "line 6: ", "line 7: ", "and 1 more bad row"],
        ),
        (
            "text\n,\na\n" + ",\n" * 1_233 + '"',
            [
                "line 2: ",
                "line 4: ",
                "line 5: ",
                "line 6: ",
                "line 7: ",
                "and 1,229 more bad rows",
                "line 1237: broken",
            ],
        ),
        ('text\n,\na\n"', ["line 2: ", "line 4: broken"]),
    ],
)
def test_refusal_names_the_first_faults_and_counts_the_others(content: str, parts: list[str]) -> None:
    error = refusal(content, "d.csv")
    # Hints of single faults have semicolons, too.
    found = [part for part in error.message.split("; ") if part.startswith("line ") or "more bad row" in part]
    assert [part[: len(start)] for part, start in zip(found, parts, strict=True)] == parts
    assert error.line == 2


def test_a_fault_that_the_first_rows_share_is_told_once_and_counted() -> None:
    content = "\n".join(['{"text": 5}'] * 5 + ['{"text": ""}', '{"text": "a"}', '{"text": 6}', '{"text": []}'])
    inspection = look(content, "d.jsonl")
    assert [fault.message for fault in inspection.faults] == [
        "line 1: column 'text' must be a string, got a number (the same in 6 rows, from the first one on)",
        "line 6: column 'text' must not be blank; fill it in or remove the row",
        "line 9: column 'text' must be a string, got a list",
    ]
    assert inspection.num_bad_rows == 8
    assert refusal(content, "d.jsonl").message == "; ".join(fault.message for fault in inspection.faults)


def test_numbers_make_no_other_cause() -> None:
    lines = [f'{{"text": {" " * number}oops}}' for number in range(1_000)]
    assert len(look("\n".join(lines), "d.jsonl").faults) == 1


def test_rows_that_only_begin_alike_are_told_one_by_one() -> None:
    content = "text\n" + ",\n" * 4 + "a\n" + ",\n" * 3
    assert [fault.line for fault in look(content, "d.csv").faults] == [2, 3, 4, 5, 7, 8, 9]
