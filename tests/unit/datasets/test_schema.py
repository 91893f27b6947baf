from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat, Message, Role, canonical_row, detect_format
from sienn_ray.errors import InvalidDatasetError


def turn(prompt: str, completion: str) -> CanonicalRow:
    return CanonicalRow(messages=(Message(Role.USER, prompt), Message(Role.ASSISTANT, completion)))


def chat(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} {index}"} for index, role in enumerate(roles)]}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["instruction", "response"], DatasetFormat.INSTRUCTION_RESPONSE),
        (["response", "instruction"], DatasetFormat.INSTRUCTION_RESPONSE),
        (["instruction", "output"], DatasetFormat.ALPACA),
        (["instruction", "input", "output"], DatasetFormat.ALPACA),
        (["instruction", "input", "response"], DatasetFormat.INSTRUCTION_INPUT_RESPONSE),
        (["prompt", "completion"], DatasetFormat.PROMPT_COMPLETION),
        (["question", "answer"], DatasetFormat.QUESTION_ANSWER),
        (["messages"], DatasetFormat.CHAT),
        (["text"], DatasetFormat.TEXT),
        ([" Instruction", "RESPONSE\t"], DatasetFormat.INSTRUCTION_RESPONSE),
        (["", "id", "prompt", "messages", "prompt_id"], DatasetFormat.CHAT),
        (["text", "instruction"], DatasetFormat.TEXT),
        ([*(f"extra {index}" for index in range(3_000)), "text"], DatasetFormat.TEXT),
    ],
)
def test_format_is_told_from_columns(columns: list[str], expected: DatasetFormat) -> None:
    assert detect_format(columns) is expected


@pytest.mark.parametrize(
    "columns", [[], [""], ["instruction"], ["instruction", "input"], ["prompts", "completion"], ["conversations"]]
)
def test_unknown_columns_are_listed_with_the_accepted_sets(columns: list[str]) -> None:
    with pytest.raises(
        InvalidDatasetError, match=r"^unknown columns: found .*instruction,response; .*; text$"
    ) as error:
        detect_format(columns)
    assert all(repr(column) in error.value.message for column in columns)


@pytest.mark.parametrize(
    ("columns", "formats"),
    [
        (["instruction", "response", "output"], "instruction-response, alpaca"),
        (["instruction", "input", "response", "output"], "alpaca, instruction-input-response"),
        (["question", "answer", "messages"], "question-answer, chat"),
    ],
)
def test_ambiguous_columns_are_refused(columns: list[str], formats: str) -> None:
    with pytest.raises(InvalidDatasetError, match=f"^ambiguous columns.*fits the formats {formats};"):
        detect_format(columns)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["prompt", "completion", "text"], DatasetFormat.PROMPT_COMPLETION),
        (["instruction", "input", "output", "text"], DatasetFormat.ALPACA),
    ],
)
def test_a_rendered_text_beside_its_parts_gives_way_to_them(columns: list[str], expected: DatasetFormat) -> None:
    assert detect_format(columns) is expected


def test_message_stays_short_with_many_long_columns() -> None:
    with pytest.raises(InvalidDatasetError, match=r"and 4,980 more") as error:
        detect_format([f"{index:0>1000}" for index in range(5_000)])
    assert len(error.value.message) < 2_000


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
        (DatasetFormat.PROMPT_COMPLETION, {"prompt": "a", "input": 7, "completion": "b"}, turn("a", "b")),
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


@pytest.mark.parametrize("value", [False, 0, 1.5, [], {}])
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


@pytest.mark.parametrize(
    "roles",
    [
        ("user", "assistant"),
        ("system", "user", "assistant"),
        ("user", "assistant", "user", "assistant"),
        ("system", "user", "assistant", "user", "assistant"),
    ],
)
def test_chat_is_kept_as_it_is(roles: tuple[str, ...]) -> None:
    raw_row = chat(*roles)
    row = canonical_row(DatasetFormat.CHAT, raw_row)
    assert row.text is None
    assert [{"role": m.role, "content": m.content} for m in row.messages or ()] == raw_row["messages"]


def test_system_message_may_be_empty() -> None:
    raw_row = chat("system", "user", "assistant")
    raw_row["messages"][0]["content"] = ""
    assert (canonical_row(DatasetFormat.CHAT, raw_row).messages or ())[0] == Message(Role.SYSTEM, "")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (("assistant", "user"), r"messages\[0\].role must be user, got assistant"),
        (("user", "user", "assistant"), r"messages\[1\].role must be assistant, got user"),
        (("user", "assistant", "assistant"), r"messages\[2\].role must be user, got assistant"),
        (("system", "assistant"), r"messages\[1\].role must be user, got assistant"),
        (("user", "system", "assistant"), r"messages\[1\].role is system, which may only come first"),
        (("system", "system", "user", "assistant"), r"messages\[1\].role is system"),
        (("user", "assistant", "user"), "the last message must be the assistant's, got user"),
        (("user",), "the last message must be the assistant's, got user"),
        (("system",), "the last message must be the assistant's, got system"),
        (("user", "tool"), r"messages\[1\].role must be one of system, user, assistant, got 'tool'"),
        (("User", "assistant"), r"messages\[0\].role must be one of"),
    ],
)
def test_chat_turns_are_checked(roles: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=f"^{message}"):
        canonical_row(DatasetFormat.CHAT, chat(*roles))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "must be a list of {role, content} objects, got null"),
        ({"role": "user", "content": "a"}, "must be a list of .*, got an object"),
        ('[{"role": "user"}]', "got a string; chats need JSON or JSONL"),
        ([], "at least one user and one assistant message, got none"),
        (["a"], r"messages\[0\] must be an object with role and content, got a string"),
        ([{"content": "a"}], r"messages\[0\] has no 'role'; it has 'content'"),
        ([{"role": "user"}], r"messages\[0\] has no 'content'"),
        ([{"role": 1, "content": "a"}], r"messages\[0\].role must be a string, got a number"),
        ([{"role": ["user"], "content": "a"}], r"messages\[0\].role must be a string, got a list"),
        ([{"role": "user", "content": None}], r"messages\[0\].content must be a string, got null"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\].content must be a string, got a list"),
        ([{"role": "user", "content": " "}], r"messages\[0\].content must not be blank"),
    ],
)
def test_chat_shape_is_checked(messages: object, message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        canonical_row(DatasetFormat.CHAT, {"messages": messages})
