"""CSV as spreadsheets, scripts and hands write it."""

from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.reading_options import ReadingOptions
from tests.unit.datasets.ingesting import fault, run, turn

HEADER = "instruction,response\n"


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for row in rows for message in row["messages"]]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_separator_is_told_from_the_first_line(separator: str, ending: str, quote: str) -> None:
    table = [["instruction", "response"], ["When, and where?", "At six, here."], ["Really?", "Yes."]]
    content = "".join(separator.join(f"{quote}{field}{quote}" for field in row) + ending for row in table)
    report, rows = run(content, "d.csv")
    assert rows == [turn(0, 2, "When, and where?", "At six, here."), turn(1, 3, "Really?", "Yes.")]
    assert report.guessed["separator"] == separator


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("instruction,response\nWhich; and why?,Rye; it keeps.\n", ["Which; and why?", "Rye; it keeps."]),
        ("instruction,response\na;b;c,d|e\tf\n", ["a;b;c", "d|e\tf"]),
        ("a;b,instruction,response\n1,q,r\n", ["q", "r"]),
        ('"instruction","response"\n"a;b","c;d"\n', ["a;b", "c;d"]),
    ],
)
def test_text_with_other_separators_is_never_mistaken(content: str, expected: list[str]) -> None:
    report, rows = run(content, "d.csv")
    assert (texts(rows), report.guessed) == (expected, {})


def test_one_column_with_semicolons_in_its_text_stays_one() -> None:
    report, rows = run("text\nOne; two\nThree | four\n", "d.csv")
    assert ([row["text"] for row in rows], report.guessed) == (["One; two", "Three | four"], {})


@pytest.mark.parametrize("filename", ["d.tsv", "d.TAB", "d.tsv.txt"])
def test_tabs_are_usual_in_a_file_that_is_named_for_them(filename: str) -> None:
    report, rows = run("prompt\tcompletion\na\tb, c\n", filename)
    assert (texts(rows), "separator" in report.guessed) == (["a", "b, c"], False)


def test_commas_in_a_file_that_is_named_for_tabs_are_guessed() -> None:
    report, rows = run("prompt,completion\na,b\n", "d.tsv")
    assert (texts(rows), report.guessed) == (["a", "b"], {"separator": ","})


def test_given_separator_wins() -> None:
    options = ReadingOptions(separator="|")
    assert texts(run("prompt|completion\na;b|c\n", "d.csv", options=options)[1]) == ["a;b", "c"]
    refusal = fault("prompt,completion\na,b\n", "d.csv", options=options).message
    assert refusal.startswith("unknown columns: found 'prompt,completion'")
    assert run("sep=;\nprompt|completion\na|b\n", "d.csv", options=options)[0].guessed == {}


def test_columns_of_other_names_tell_the_separator_too() -> None:
    options = ReadingOptions(columns={"Frage": "question", "Antwort, kurz": "answer"})
    report, rows = run("Frage;Antwort, kurz\na;b\n", "d.csv", options=options)
    assert (texts(rows), report.guessed) == (["a", "b"], {"separator": ";"})


def test_unknown_columns_are_shown_apart() -> None:
    assert "found 'frage', 'antwort'; " in fault("Frage;Antwort\na;b\n", "d.csv").message.lower()


@pytest.mark.parametrize(
    ("line", "separator"),
    [("sep=;", ";"), ("SEP=,", ","), ('"sep=|"', "|"), ("sep=\t", "\t"), ("\ufeffsep=;", ";"), ("sep=;;;", ";")],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_for_excel_names_the_separator(line: str, separator: str, mark: str) -> None:
    content = f"{line}\r\n{mark}instruction{separator}response\r\na{separator}b\r\n"
    report, rows = run(content, "d.csv")
    assert rows == [turn(0, 3, "a", "b")]
    assert report.guessed == ({} if separator == "," else {"separator": separator})


def test_line_for_excel_with_another_separator_is_refused() -> None:
    assert "sep=~ names the separator '~', which isn't read here" in fault("sep=~\na~b\n", "d.csv").message


@pytest.mark.parametrize("behind", [",", ",,,", ", ,"])
def test_unnamed_empty_columns_behind_the_data_are_left_out(behind: str) -> None:
    report, rows = run(f"instruction,response{behind}\na,b{behind}\nc,d\n", "d.csv")
    assert texts(rows) == ["a", "b", "c", "d"]
    assert report.columns == ("instruction", "response")


def test_text_in_a_column_without_a_name_is_a_fault() -> None:
    assert fault("instruction,response,,\na,b,,\nc,d,,e\n", "d.csv").message == (
        "line 3: 'e' stands in a column without a name; name it in the header, or remove it"
    )


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        (",prompt,completion", "0,a,b", ("", "prompt", "completion")),
        (",,prompt,completion", ",,a,b", ("column 1", "column 2", "prompt", "completion")),
    ],
)
def test_unnamed_columns_before_the_data_are_columns(header: str, row: str, columns: tuple[str, ...]) -> None:
    report, rows = run(f"{header}\n{row}\n", "d.csv")
    assert (texts(rows), report.columns) == (["a", "b"], columns)


@pytest.mark.parametrize("blank", [",", " , ", '"",""', "  ", ",,", "\t,"])
def test_blank_rows_are_left_out_and_counted(blank: str) -> None:
    report, rows = run(f"{HEADER}a,b\n{blank}\nc,d\n{blank}\n{blank}\n", "d.csv")
    assert [row["line"] for row in rows] == [2, 4]
    assert report.notes == ("3 blank rows were left out, the first one in line 3",)


def test_blank_rows_before_the_header_are_left_out() -> None:
    assert run(",,\n;\n \ninstruction,response\na,b\n", "d.csv")[1] == [turn(0, 5, "a", "b")]


def test_row_that_is_blank_in_part_is_no_blank_row() -> None:
    assert "line 2: column 'response' must not be blank" in fault(f"{HEADER}a, \n", "d.csv").message


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["instruction,response", "Instruction , RESPONSE", '"instruction","response"'])
def test_header_that_comes_again_is_left_out(mark: str, header: str) -> None:
    report, rows = run(f"{HEADER}a,b\n{mark}{header}\nc,d\n", "d.csv")
    assert [(row["line"], row["messages"][0]["content"]) for row in rows] == [(2, "a"), (4, "c")]
    assert report.notes[-1] == "1 repeated header was left out, the first one in line 3"


def test_header_that_comes_again_with_empty_columns_is_left_out() -> None:
    report, rows = run("prompt,completion,\na,b,\nprompt,completion,\nprompt,completion\nc,d,\n", "d.csv")
    assert texts(rows) == ["a", "b", "c", "d"]
    assert report.notes == ("2 repeated headers were left out, the first one in line 3",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('instruction, response\nWhen?, "At six, or so."\nWhy?, So.\n', ["When?", "At six, or so.", "Why?", "So."]),
        ('"instruction"; "response"\n"a"; "b"\n', ["a", "b"]),
    ],
)
def test_spaces_behind_separators_are_left_out_where_the_header_has_them(content: str, expected: list[str]) -> None:
    report, rows = run(content, "d.csv")
    assert texts(rows) == expected
    assert report.guessed["spaces"] == "left out behind separators"


@pytest.mark.parametrize(
    "row", ['When?, "At six."', 'When?,  "At six, or so."', '\u00a0When?, "At\nsix."', ' "When?",x']
)
def test_quotes_behind_a_space_are_a_fault_with_its_line(row: str) -> None:
    message = fault(f"{HEADER}a,b\n{row}\n", "d.csv").message
    assert message.startswith("line 3: field ")
    assert (
        "begins with a space before its quote, so that the quotes would be part of the text; remove the space"
        in message
    )


def test_way_out_of_a_space_before_a_quote_leads_to_success() -> None:
    row = 'When?, "At six, or so."\n'
    fault(HEADER + row, "d.csv")
    assert texts(run(HEADER + row.replace(', "', ',"'), "d.csv")[1]) == ["When?", "At six, or so."]


@pytest.mark.parametrize(
    "field", ['"He said, ""go"""', '"x, ""y"" z"', " leading space", '"a, b ""c"" "', '"one, "" two"']
)
def test_quotes_within_text_are_text(field: str) -> None:
    expected = field[1:-1].replace('""', '"') if field.startswith('"') else field
    assert texts(run(f"{HEADER}q,{field}\n", "d.csv")[1]) == ["q", expected]


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ('"say "no"",b', "line 2: broken CSV: ',' expected after '\"' at column 7"),
        ('a,"say "no" now"', "line 2: broken CSV: ',' expected after '\"' at column 9"),
        ('"a ""b"" c"d,e', "line 2: broken CSV: ',' expected after '\"' at column 12"),
        ('"a\nb"c,d', "line 2: broken CSV: ',' expected after '\"' at column 3"),
    ],
)
def test_quotes_that_are_not_doubled_have_line_and_column(row: str, place: str) -> None:
    assert fault(f"{HEADER}{row}\n", "d.csv").message.startswith(place)


def test_fields_that_are_too_many_are_told_with_the_separator() -> None:
    message = fault("prompt;completion\na;b;c\n", "d.csv").message
    assert "the row has 3 fields, but the header has 2 columns; put quotes around a field with semicolons" in message


def test_marks_in_the_middle_of_text_stay() -> None:
    assert texts(run(f"{HEADER}a\ufeffb,c\ufeff\n", "d.csv")[1]) == ["a\ufeffb", "c\ufeff"]


def test_file_without_a_header_is_told_that_it_needs_one() -> None:
    message = fault("When?,At six.\nWhy?,So.\n", "d.csv").message
    assert "found 'when?', 'at six.'" in message.lower()
    assert message.endswith("; the first row of the file must name the columns")
    assert "first row" not in fault('{"a": "b"}', "d.jsonl").message
