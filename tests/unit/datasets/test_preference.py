from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.canonical import canonical_row
from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat, Message, Role
from sienn_ray.errors import InvalidDatasetError

USER = [{"role": "user", "content": "a"}]
CHOSEN = [{"role": "assistant", "content": "b"}]
REJECTED = [{"role": "assistant", "content": "c"}]
ROW: dict[str, Any] = {"prompt": "a", "chosen": "b", "rejected": "c"}
EXPECTED = CanonicalRow(
    messages=(Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")), rejected=Message(Role.ASSISTANT, "c")
)


def conversation(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} {index}"} for index, role in enumerate(roles)]


def fault(raw_row: dict[str, Any]) -> str:
    with pytest.raises(InvalidDatasetError) as error:
        canonical_row(DatasetFormat.PREFERENCE, raw_row)
    return error.value.message


@pytest.mark.parametrize(
    "raw_row",
    [
        ROW,
        {"Prompt ": "a", "CHOSEN": "b", " rejected": "c", "score_chosen": 9.5},
        {"prompt": USER, "chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": "a", "chosen": CHOSEN, "rejected": "c"},
        {"prompt": USER, "chosen": "b", "rejected": "c"},
    ],
)
def test_strings_and_messages_make_the_same_row(raw_row: dict[str, Any]) -> None:
    assert canonical_row(DatasetFormat.PREFERENCE, raw_row) == EXPECTED


@pytest.mark.parametrize("roles", [("user",), ("system", "user"), ("system", "user", "assistant", "user")])
def test_prompt_may_be_a_conversation(roles: tuple[str, ...]) -> None:
    prompt = conversation(*roles)
    row = canonical_row(DatasetFormat.PREFERENCE, {**ROW, "prompt": prompt})
    assert [{"role": m.role, "content": m.content} for m in row.messages or ()] == [*prompt, *CHOSEN]
    assert row.rejected == Message(Role.ASSISTANT, "c")


def test_answers_keep_their_white_space() -> None:
    row = canonical_row(DatasetFormat.PREFERENCE, {**ROW, "chosen": " b\n", "rejected": "b"})
    assert ((row.messages or ())[-1].content, row.rejected) == (" b\n", Message(Role.ASSISTANT, "b"))


@pytest.mark.parametrize(("chosen", "rejected"), [("b", "b"), (CHOSEN, CHOSEN), (CHOSEN, "b")])
def test_equal_answers_are_refused(chosen: object, rejected: object) -> None:
    message = fault({"prompt": "a", "chosen": chosen, "rejected": rejected})
    assert message.startswith("columns 'chosen' and 'rejected' hold the same answer, so there is nothing to learn")


@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
class TestColumn:
    @pytest.mark.parametrize("blank", ["", " \n", "\u00a0"])
    def test_is_not_blank(self, column: str, blank: str) -> None:
        assert fault({**ROW, column: blank}).startswith(f"column '{column}' must not be blank")
        role = "user" if column == "prompt" else "assistant"
        message = fault({**ROW, column: [{"role": role, "content": blank}]})
        assert message.startswith(f"{column}[0].content must not be blank")

    def test_is_there(self, column: str) -> None:
        row = {name: value for name, value in ROW.items() if name != column}
        assert fault(row).startswith(f"column '{column}' is missing; the row has ")

    @pytest.mark.parametrize(("value", "kind"), [(None, "null"), (7, "a number"), (False, "a boolean")])
    def test_is_a_string_or_messages(self, column: str, value: object, kind: str) -> None:
        expected = f"column '{column}' must be a string or a list of {{role, content}} objects, got {kind}"
        assert fault({**ROW, column: value}) == expected

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ("a", "[0] must be an object with role and content, got a string"),
            ({"role": "user"}, "[0] has no 'content'; it has 'role'"),
            (
                {"role": "narrator", "content": "a"},
                "[0].role must be one of system, developer, user, assistant, tool, got 'narrator'",
            ),
            (
                {"role": "user", "content": [1]},
                "[0].content[0] must be a part such as {type: text, text: ...}, got a number",
            ),
        ],
    )
    def test_has_whole_messages(self, column: str, item: object, message: str) -> None:
        assert fault({**ROW, column: [item]}) == column + message

    def test_has_whole_characters(self, column: str) -> None:
        assert fault({**ROW, column: "a\ud800"}).startswith(f"column '{column}' has half of a surrogate pair")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "column 'prompt' must have at least one user message, got none"),
        (
            conversation("user", "assistant"),
            "the last message of column 'prompt' must be the user's or a tool's, got assistant; the answers belong in "
            "'chosen' and 'rejected'",
        ),
        (conversation("system"), "the last message of column 'prompt' must be the user's or a tool's, got system"),
        (conversation("user", "tool"), "prompt[1] is a tool's, which may only follow the assistant's call"),
    ],
)
def test_turns_of_the_prompt_are_checked(prompt: object, message: str) -> None:
    assert fault({**ROW, "prompt": prompt}).startswith(message)


@pytest.mark.parametrize("column", ["chosen", "rejected"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "column '{}' must have one message, the assistant's, got 0"),
        (
            [*CHOSEN, *CHOSEN],
            "column '{}' must have one message, the assistant's, got 2; those before it belong in 'prompt'",
        ),
        (USER, "{}[0].role must be assistant, got user"),
    ],
)
def test_answer_is_one_message_of_the_assistant(column: str, answer: object, message: str) -> None:
    assert fault({**ROW, column: answer}).startswith(message.format(column))
