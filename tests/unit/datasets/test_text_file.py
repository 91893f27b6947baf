"""A `.txt` file is read as what it holds."""

from __future__ import annotations

import io
import json

import pytest

from sienn_ray.datasets.schema import DatasetFormat
from tests.unit.datasets.ingesting import ByteByByte, fault, run, turn

ROW = json.dumps({"instruction": "a", "response": "b"})


@pytest.mark.parametrize(
    ("filename", "content", "line"),
    [
        ("rows.txt", ROW, 1),
        ("ROWS.TXT", f"\ufeff\n{ROW}\n", 2),
        ("rows.txt", f"[\n {ROW}\n]", 1),
        ("rows.txt", "Instruction, response\na,b\n", 2),
        ("rows.jsonl.txt", ROW, 1),
        ("rows.json.txt", f"[{ROW}]", 1),
        ("rows.csv.TXT", "instruction,response\na,b\n", 2),
    ],
)
def test_rows_of_another_kind_are_rows(filename: str, content: str, line: int) -> None:
    report, rows = run(content, filename)
    assert (report.format, rows) == (DatasetFormat.INSTRUCTION_RESPONSE, [turn(0, line, "a", "b")])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("One.\nTwo.\nThree.", [(1, "One."), (2, "Two."), (3, "Three.")]),
        ("One.\nTwo.\n\n", [(1, "One.\nTwo.")]),
        ("\n\nOne,\nwrapped.\r\n\r\n \t\n  Two,\nindented.  \n", [(3, "One,\nwrapped."), (7, "  Two,\nindented.")]),
        ("\ufeffOnly one line", [(1, "Only one line")]),
        ("Dear [name], {greeting}\nBye", [(1, "Dear [name], {greeting}"), (2, "Bye")]),
        ("[Applause]\nThanks", [(1, "[Applause]"), (2, "Thanks")]),
        ("question\nanswer", [(1, "question"), (2, "answer")]),
    ],
)
@pytest.mark.parametrize("stream", [io.BytesIO, ByteByByte])
def test_plain_text_is_divided_at_blank_lines_or_else_at_all_lines(
    stream: type[io.BytesIO], content: str, expected: list[tuple[int, str]]
) -> None:
    report, rows = run(stream(content.encode()).getvalue(), "notes.txt")
    assert (report.format, report.columns) == (DatasetFormat.TEXT, ("text",))
    assert [(row["line"], row["text"]) for row in rows] == expected
    assert report.preview == [{"text": text} for _, text in expected]


def test_memory_is_bounded_by_the_longest_row() -> None:
    lines = "0123456789\n" * 20
    # No blank line before more than a row may have: each line is one.
    assert len(run(f"{lines}\nend\n", "notes.txt", max_row_bytes=100)[1]) == 21
    error = fault(f"short\n\n{lines}", "notes.txt", max_row_bytes=100)
    assert error.line == 3
    assert "the paragraph that begins here is longer than 100 bytes; put blank lines" in error.message
    assert "the line is longer than 9 bytes" in fault(lines, "notes.txt", max_row_bytes=9).message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file has no rows"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS; fetch the file itself"),
        ("\n<!DOCTYPE HTML>\n<p>Not found", "a web page; download the file itself"),
        ("PK\x03\x04", "a ZIP archive"),
        ("a\0b", "is not text"),
        ('{"instruction": "a"', "invalid JSON"),
    ],
)
def test_what_is_no_text_is_refused(content: str, message: str) -> None:
    assert message in fault(content, "notes.txt").message
