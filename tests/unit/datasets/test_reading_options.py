"""Options of reading are checked where they are built, and read from fields of a form."""

from __future__ import annotations

import pytest

from sienn_ray.datasets.reading_options import MAX_COLUMNS, ReadingOptions, columns_of, options_of
from sienn_ray.datasets.shapes.table import known_columns
from sienn_ray.datasets.text_encodings import ENCODINGS, codec_of
from sienn_ray.errors import InvalidInputError
from tests.unit.datasets.ingesting import fault, run, turn


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        (",", ","),
        ("comma", ","),
        (";", ";"),
        ("Semicolon", ";"),
        ("|", "|"),
        ("pipe", "|"),
        ("\t", "\t"),
        ("\\t", "\t"),
    ],
)
def test_separators_have_names(name: str, separator: str) -> None:
    assert ReadingOptions(separator=name).separator == separator


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("cp1252", "windows-1252"),
        ("Windows_1252", "windows-1252"),
        ("1252", "windows-1252"),
        ("latin-1", "iso-8859-1"),
        ("UTF8", "utf-8"),
        ("utf-16le", "utf-16-le"),
        ("Shift_JIS", "shift-jis"),
        ("gb2312", "gbk"),
    ],
)
def test_encodings_have_many_names(name: str, known: str) -> None:
    assert codec_of(name) == known


def test_every_encoding_is_one_of_python() -> None:
    for name, codec in ENCODINGS.items():
        assert codec_of(name) == name
        assert b"a".decode("utf-8").encode(codec).decode(codec) == "a"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoding": ["rot13"]}, "encoding: 'rot13' isn't one that is read here; known are utf-8"),
        ({"encoding": ["hex"]}, "encoding: 'hex' isn't one"),
        ({"encoding": ["../utf-8/x"]}, "encoding: '../utf-8/x' isn't one"),
        ({"encoding": ["unicode_escape"]}, "encoding: 'unicode_escape' isn't one"),
        ({"encoding": ["utf-8", "cp1252"]}, "encoding: more than one was given: 'utf-8', 'cp1252'; give one"),
        ({"separator": [":"]}, "separator: ':' isn't known; use one of ',', ';', '\\t', '|', or its name: comma, "),
        ({"separator": [";;"]}, "separator: ';;' isn't known"),
        ({"columns": ["Frage"]}, "columns: 'Frage' is no pair of names; write a column of the file and the name"),
        ({"columns": ["Frage="]}, "columns: 'Frage=' is no pair of names"),
        ({"columns": ["a=prompt,a=completion"]}, "columns: 'a' is given more than once"),
        ({"columns": ["a=prompt", "a=completion"]}, "columns: 'a' is given more than once"),
        ({"columns": ["a=prompt,A =completion"]}, "columns: 'A' is given more than once"),
        ({"columns": ["a=prompt,b=prompt"]}, "columns: two columns are to be 'prompt'; choose one of them"),
        ({"columns": ['{"a": "prompt", "a": "text"}']}, "columns: 'a' is given more than once"),
        ({"columns": ['{"a": ["prompt"]}']}, 'columns: \'{"a": ["prompt"]}\' names a column by something else than'),
        ({"columns": ['{"a": ']}, "columns: '{\"a\": ' is no JSON object; write it as in"),
        ({"columns": ["{" + '"a":{' * 100_000]}, "columns: "),
        ({"columns": ["Frage=qestion"]}, "columns: 'qestion', which 'Frage' is to stand for, isn't known; known are"),
        ({"columns": ["question=Frage"]}, "isn't known; is it the other way round, frage=question?; known are"),
        ({"columns": [",".join(f"c{n}=text" for n in range(MAX_COLUMNS + 1))]}, "columns: 101 names are too many"),
        ({"columns": ["x" * 300 + "=text"]}, "has more than 200 characters"),
    ],
)
def test_bad_options_are_refused_with_value_and_choices(fields: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        options_of(fields)
    assert message in error.value.message
    assert len(error.value.message) < 700


def test_empty_fields_say_nothing() -> None:
    assert options_of({"encoding": [""], "separator": [""], "columns": [""]}) == ReadingOptions()
    assert options_of({}).as_fields() == {}


def test_names_may_hold_what_pairs_are_made_of() -> None:
    assert columns_of('{"a=b, c": "text"}') == {"a=b, c": "text"}
    assert columns_of("a=b=text\n, d = prompt") == {"a=b": "text", "d": "prompt"}


def test_given_options_can_be_stored() -> None:
    options = options_of({"encoding": ["cp1252"], "columns": ["Frage=Question"]})
    assert options.as_fields() == {"encoding": "windows-1252", "columns": {"Frage": "question"}}


def test_formats_read_what_columns_may_stand_for() -> None:
    assert {"instruction", "input", "response", "output", "messages", "text", "chosen"} <= known_columns()


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("d.csv", "Id, Frage,Antwort\n1,a,b\n"),
        ("d.jsonl", '{"Id": 1, "Frage": "a", "Antwort": "b"}'),
        ("d.json", '[{"Id": 1, "Frage": "a", "Antwort": "b"}]'),
    ],
)
def test_columns_are_read_under_other_names(filename: str, content: str) -> None:
    report, rows = run(content, filename, options=ReadingOptions(columns={"frage": "question", "Antwort": "answer"}))
    assert rows == [turn(0, 2 if filename == "d.csv" else 1, "a", "b")]
    # Shown as the file has them.
    assert [name.strip() for name in report.columns] == ["Id", "Frage", "Antwort"]


def test_a_column_that_another_one_stands_for_is_left_out_and_named() -> None:
    report, rows = run("text,body\na,b\n", "d.csv", options=ReadingOptions(columns={"body": "text"}))
    assert [row["text"] for row in rows] == ["b"]
    assert report.ignored_columns == ("text",)


def test_columns_may_change_places() -> None:
    swapped = ReadingOptions(columns={"prompt": "completion", "completion": "prompt"})
    assert run("prompt,completion\na,b\n", "d.csv", options=swapped)[1] == [turn(0, 2, "b", "a")]


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    error = fault("text,body\na,b\n", "d.csv", options=ReadingOptions(columns={"Body text": "text"}))
    assert error.message == "columns: the file has no column 'Body text'; it has 'text', 'body'"
