"""Answers with a label that says whether they are good ones (KTO)."""

from __future__ import annotations

import pytest

from tests.unit.datasets.shapes.reading import Row, read, refusal

PAIR = {"prompt": "q", "completion": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
MESSAGES = {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]}


@pytest.mark.parametrize("row", [PAIR, CHAT, SHAREGPT, MESSAGES, {"instruction": "q", "output": "a"}])
@pytest.mark.parametrize("name", ["label", "kto_tag", "Label"])
@pytest.mark.parametrize(
    ("label", "is_good"),
    [
        *((value, True) for value in (True, 1, 1.0, "true", "True", "1", " yes")),
        *((value, False) for value in (False, 0, 0.0, "false", "FALSE", "0", "no")),
    ],
)
def test_labels_have_many_forms(row: Row, name: str, label: object, is_good: bool) -> None:
    found = read({**row, name: label})
    assert (found.format, found.said, found.rows[0].label) == (
        "unpaired-preference",
        [("user", "q"), ("assistant", "a")],
        is_good,
    )


@pytest.mark.parametrize(
    ("label", "found"), [("spam", "'spam'"), (2, "2"), (0.5, "0.5"), (["a"], "a list"), ({"a": 1}, "an object")]
)
def test_a_label_that_says_something_else_is_refused_with_the_way_out(label: object, found: str) -> None:
    message = refusal({**PAIR, "label": label})
    assert message.startswith(
        f"column 'label' must be true or false, or 1 or 0, and say whether the answer is a good one, got {found};"
    )
    assert message.endswith('columns={"label": "ignore"}')
    assert read({**PAIR, "label": label}, columns={"label": "ignore"}).format == "prompt-completion"


@pytest.mark.parametrize("row", [{**PAIR, "label": None}, {**PAIR, "label": ""}, PAIR])
def test_every_row_needs_a_label_where_the_first_has_one(row: Row) -> None:
    assert refusal({**PAIR, "label": True}, row).startswith("column 'label' ")


def test_a_label_that_only_later_rows_have_is_refused() -> None:
    message = refusal(PAIR, {**PAIR, "label": True})
    assert message.startswith(
        "column 'label' would change what is learned, and can't be read beside prompt,completion; "
    )
    assert read(PAIR, {**PAIR, "label": None}).format == "prompt-completion"


def test_empty_labels_from_the_first_row_on_say_nothing() -> None:
    assert read({**CHAT, "label": None}, {**CHAT, "label": None}).format == "chat"


def test_a_class_beside_a_text_is_refused_with_two_ways_out() -> None:
    row = {"text": "Cheap pills!", "label": "spam"}
    message = refusal(row)
    assert "can't be read beside text; to learn it as the answer, say columns=" in message
    found = read(row, columns={"text": "prompt", "label": "completion"})
    assert found.said == [("user", "Cheap pills!"), ("assistant", "spam")]
    assert read(row, columns={"label": "ignore"}).rows[0].text == "Cheap pills!"
