"""Better and worse answers in the forms of TRL, OpenAI, LLaMA-Factory, ms-swift, UltraFeedback, Orca and HH."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.datasets.shapes.reading import Row, read, refusal

ASKED = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "a"}
BAD = {"role": "assistant", "content": "b"}
PAIR = [("user", "q"), ("assistant", "a")]
SHARED: dict[str, Any] = {
    "ultrafeedback": {
        "prompt": "q",
        "prompt_id": "p",
        "chosen": [ASKED, GOOD],
        "rejected": [ASKED, BAD],
        "messages": [ASKED, GOOD],
    },
    "prompt within": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "score_chosen": 8.5, "score_rejected": 3.0},
    "prompt within, and messages": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "messages": [ASKED, GOOD]},
    "prompt as messages": {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "one of them whole": {"prompt": "q", "chosen": [ASKED, GOOD], "rejected": "b"},
    "openai": {
        "input": {"messages": [ASKED], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    },
    "llama-factory": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
    "alpaca": {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
    "orca": {"question": "q", "chosen": "a", "rejected": "b"},
    "ms-swift": {"messages": [ASKED, GOOD], "rejected_response": "b"},
    "ms-swift pair": {"query": "q", "response": "a", "rejected_response": "b"},
    "pair": {"prompt": "q", "response": "a", "rejected": "b"},
    "hh": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    "csv whole": {"chosen": json.dumps([ASKED, GOOD]), "rejected": json.dumps([ASKED, BAD])},
}


@pytest.mark.parametrize("row", SHARED.values(), ids=SHARED)
def test_forms_of_preferences_make_the_same_row(row: Row) -> None:
    found = read(row)
    assert (found.format, found.said, found.rejected) == ("preference", PAIR, "b")


def test_messages_as_json_are_read_where_all_fields_are_strings() -> None:
    row = {"prompt": json.dumps([ASKED]), "chosen": json.dumps([GOOD]), "rejected": json.dumps(BAD)}
    found = read(row, are_strings=True)
    assert (found.said, found.rejected) == (PAIR, "b")
    found = read(row)
    assert (found.said, found.rejected) == ([("user", row["prompt"]), ("assistant", row["chosen"])], row["rejected"])


@pytest.mark.parametrize("prompt", ["q", "\n\nHuman: q\n\nAssistant:", "Human: q", [ASKED]])
def test_texts_of_turns_are_told_beside_their_prompt(prompt: object) -> None:
    for row in (SHARED["hh"], {name: text.lstrip() for name, text in SHARED["hh"].items()}):
        found = read({"prompt": prompt, **row})
        assert (found.said, found.rejected) == (PAIR, "b")
        assert found.notes == ["the turns of line 1 were told from 'Human:' and 'Assistant:' in its text"]


def test_texts_of_turns_must_begin_with_their_prompt() -> None:
    message = refusal({"prompt": "z", **SHARED["hh"]})
    assert message.startswith("column 'prompt' isn't what the conversations in 'chosen' and 'rejected' begin with")


@pytest.mark.parametrize("answer", ["Human: is a word", "It says\n\nHuman: x\n\nAssistant: y"])
def test_texts_of_no_turns_stay_answers(answer: str) -> None:
    found = read({"prompt": "q", "chosen": answer, "rejected": f"{answer}!"})
    assert found.said == [("user", "q"), ("assistant", answer)]


def test_tools_and_what_is_left_out_of_openais_form() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    row = {**SHARED["openai"], "input": {"messages": [ASKED], "tools": [tool], "parallel_tool_calls": True}}
    found = read(row)
    assert found.ignored == ["input.parallel_tool_calls"]
    assert found.rows[0].tools == '[{"type": "function", "function": {"name": "f"}}]'


@pytest.mark.parametrize("name", ["orca", "alpaca", "ultrafeedback", "llama-factory", "hh", "openai", "ms-swift"])
def test_system_column_comes_first(name: str) -> None:
    found = read({"system": "s", **SHARED[name]})
    assert (found.said, found.rejected) == ([("system", "s"), *PAIR], "b")


def test_input_and_history_go_to_the_prompt() -> None:
    found = read({**SHARED["alpaca"], "input": "i", "history": [["x", "y"]]})
    assert found.said == [("user", "x"), ("assistant", "y"), ("user", "q\n\ni"), ("assistant", "a")]


def test_turns_before_the_answers_are_their_prompt() -> None:
    earlier = [ASKED, GOOD, {"role": "user", "content": "more"}]
    found = read({"prompt": "more", "chosen": [*earlier, GOOD], "rejected": [*earlier, BAD]})
    assert found.said == [*PAIR, ("user", "more"), ("assistant", "a")]
    text = "\n\nHuman: q\n\nAssistant: x\n\nline\n\nHuman: r\n\nAssistant:"
    found = read({"chosen": f"{text} a", "rejected": f"{text} b"})
    assert found.said == [("user", "q"), ("assistant", "x\n\nline"), ("user", "r"), ("assistant", "a")]
    assert found.notes == ["the turns of line 1 were told from 'Human:' and 'Assistant:' in its text"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "z", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
            "column 'prompt' isn't what the conversations in 'chosen' and 'rejected' begin with",
        ),
        (
            {"chosen": [ASKED, GOOD, ASKED, GOOD], "rejected": [ASKED, BAD, ASKED, BAD]},
            "columns 'chosen' and 'rejected' must be the same conversation but for the last message, and they part at "
            "message 2 of 4 and 4",
        ),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD]}, "columns 'chosen' and 'rejected' hold the same answer"),
        ({"prompt": "q", "chosen": None, "rejected": [ASKED, BAD]}, "column 'chosen' must be a string or a list"),
        ({"chosen": "blue", "rejected": "green"}, "there is no column with the prompt, so 'chosen' must be a whole"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "there is no column with the prompt, so 'chosen' must be a whole"),
        ({"prompt": "q", "chosen": [ASKED, ASKED], "rejected": "b"}, "chosen[0].role must be assistant, got user"),
        (
            {"messages": "q", "chosen": "a", "rejected": "b"},
            "column 'messages' must be a list of messages, got a string",
        ),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "label": True}, "column 'label' would change what is learned"),
        (
            {"prompt": "q", "response": "a", "rejected": "b", "reasoning": "r"},
            "column 'reasoning' would change what is",
        ),
        (
            {"prompt": [ASKED], "context": "c", "chosen": "a", "rejected": "b"},
            "column 'context' can't be put behind a prompt",
        ),
    ],
)
def test_what_does_not_fit_is_refused(row: Row, message: str) -> None:
    assert refusal(row).startswith(message)
