from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.canonical import canonical_row
from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat, Message, Role
from sienn_ray.errors import InvalidDatasetError


def turn(prompt: str, completion: str) -> CanonicalRow:
    return CanonicalRow(messages=(Message(Role.USER, prompt), Message(Role.ASSISTANT, completion)))


@pytest.mark.parametrize(
    ("dataset_format", "raw_row", "expected"),
    [
        (DatasetFormat.INSTRUCTION_RESPONSE, {"instruction": "a", "response": "b"}, turn("a", "b")),
        (DatasetFormat.INSTRUCTION_RESPONSE, {" Instruction ": "a", "RESPONSE": "b", "id": 3}, turn("a", "b")),
        (DatasetFormat.INSTRUCTION_RESPONSE, {"instruction": "a", "input": "c", "response": "b"}, turn("a\n\nc", "b")),
        (DatasetFormat.ALPACA, {"instruction": "a", "input": "c", "output": "b"}, turn("a\n\nc", "b")),
        (DatasetFormat.ALPACA, {"instruction": "a", "input": "", "output": "b"}, turn("a", "b")),
        (DatasetFormat.ALPACA, {"instruction": "a", "input": " \n", "output": "b"}, turn("a", "b")),
        (DatasetFormat.ALPACA, {"instruction": "a", "input": None, "output": "b"}, turn("a", "b")),
        (DatasetFormat.ALPACA, {"instruction": "a", "output": "b"}, turn("a", "b")),
        (DatasetFormat.INSTRUCTION_INPUT_RESPONSE, {"instruction": "a", "response": "b"}, turn("a", "b")),
        (DatasetFormat.PROMPT_COMPLETION, {"prompt": " a\n", "completion": "\tb "}, turn(" a\n", "\tb ")),
        (DatasetFormat.PROMPT_COMPLETION, {"prompt": "a", "input": "c", "completion": "b"}, turn("a\n\nc", "b")),
        (DatasetFormat.QUESTION_ANSWER, {"question": "é", "answer": "日本 🦙"}, turn("é", "日本 🦙")),
        (DatasetFormat.TEXT, {"text": " once "}, CanonicalRow(text=" once ")),
    ],
)
def test_row_is_made_canonical(dataset_format: DatasetFormat, raw_row: dict[str, Any], expected: CanonicalRow) -> None:
    assert canonical_row(dataset_format, raw_row) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (7, "a number"),
        (float("nan"), "a number"),
        (["a"], "a list"),
        ({"a": "b"}, "an object"),
    ],
)
@pytest.mark.parametrize("column", ["instruction", "response"])
def test_value_that_is_no_string_is_refused(column: str, value: object, kind: str) -> None:
    raw_row = {"instruction": "a", "response": "b", column: value}
    with pytest.raises(InvalidDatasetError, match=f"^column '{column}' must be a string, got {kind}$"):
        canonical_row(DatasetFormat.INSTRUCTION_RESPONSE, raw_row)


@pytest.mark.parametrize("value", [False, 0, 1.5, {"a": 1}])
def test_input_must_be_a_string_or_null(value: object) -> None:
    with pytest.raises(InvalidDatasetError, match=r"^column 'input' must be a string"):
        canonical_row(DatasetFormat.ALPACA, {"instruction": "a", "input": value, "output": "b"})


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r", "\u00a0\u2003"])
@pytest.mark.parametrize(
    ("dataset_format", "column"),
    [
        (DatasetFormat.PROMPT_COMPLETION, "prompt"),
        (DatasetFormat.PROMPT_COMPLETION, "completion"),
        (DatasetFormat.TEXT, "text"),
    ],
)
def test_blank_value_is_refused(dataset_format: DatasetFormat, column: str, blank: str) -> None:
    raw_row = {"prompt": "a", "completion": "b", "text": "c", column: blank}
    with pytest.raises(InvalidDatasetError, match=f"^column '{column}' must not be blank"):
        canonical_row(dataset_format, raw_row)


def test_blank_instruction_is_refused_though_there_is_an_input() -> None:
    with pytest.raises(InvalidDatasetError, match=r"^column 'instruction' must not be blank"):
        canonical_row(DatasetFormat.ALPACA, {"instruction": " ", "input": "c", "output": "b"})


def test_missing_column_is_named() -> None:
    with pytest.raises(InvalidDatasetError, match=r"^column 'answer' is missing; the row has 'question', 'id'$"):
        canonical_row(DatasetFormat.QUESTION_ANSWER, {"question": "a", "id": 1})


def test_columns_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(InvalidDatasetError, match=r"same name.*: 'Text '$"):
        canonical_row(DatasetFormat.TEXT, {"text": "a", "Text ": "b"})


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidDatasetError, match=r"^column 'text' has half of a surrogate pair, \\ud800"):
        canonical_row(DatasetFormat.TEXT, {"text": "a\ud800"})
