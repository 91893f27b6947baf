"""Conversations under the keys and words of ShareGPT and others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.datasets.shapes.reading import Row, read, refusal

ASKED = {"from": "human", "value": "q"}
SAID = {"from": "gpt", "value": "a"}
TURN = [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize("column", ["conversations", "conversation", "Conversations ", "messages"])
@pytest.mark.parametrize(
    "turns",
    [
        [ASKED, SAID],
        [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        [{"role": "human", "value": "q"}, {"from": "gpt", "content": "a"}],
        [{"from": "Human", "value": "q"}, {"from": " GPT", "value": "a"}],
        [{"role": "user", "text": "q"}, {"role": "bot", "text": "a"}],
        [{**ASKED, "text": None}, {**SAID, "weight": None, "markdown": None}],
        [{"human": "q", "assistant": "a"}],
        [{"input": "q", "output": "a"}],
    ],
)
def test_turns_have_many_forms(column: str, turns: list[Row]) -> None:
    found = read({column: turns})
    assert (found.format, found.said, found.ignored) == ("chat", TURN, [])
    assert read({column: json.dumps(turns)}).said == TURN


@pytest.mark.parametrize(
    ("word", "role"),
    [
        *((word, "user") for word in ("human", "user", "USER", "prompter")),
        *((word, "assistant") for word in ("gpt", "assistant", "chatgpt", "bing", "bard", "bot", "model")),
        *((word, "system") for word in ("system", "System")),
    ],
)
def test_words_for_who_speaks(word: str, role: str) -> None:
    assert read({"conversations": [ASKED, SAID, {"from": word, "value": "x"}, ASKED, SAID]}).said[2] == (role, "x")


@pytest.mark.parametrize("calls", ["function_call", "tool_call"])
@pytest.mark.parametrize("answers", ["observation", "tool", "function_response", "tool_response"])
def test_calls_of_tools(calls: str, answers: str) -> None:
    call = '{"name": "stock", "arguments": {"item": "rye"}}'
    turns = [ASKED, {"from": calls, "value": call}, {"from": answers, "value": "4"}, SAID]
    tools = '[{"name": "stock", "description": "Loaves left", "parameters": {"type": "object"}}]'
    found = read({"conversations": turns, "tools": tools, "system": ""})
    assert [role for role, _ in found.said] == ["user", "assistant", "tool", "assistant"]
    (made,) = found.messages[1]["tool_calls"]
    assert made["function"] == {"name": "stock", "arguments": '{"item": "rye"}'}
    assert '"description": "Loaves left"' in (found.rows[0].tools or "")


def test_several_calls_in_one_turn() -> None:
    calls = '[{"name": "f", "arguments": {}}, {"name": "g", "parameters": {"x": 1}}]'
    turns = [ASKED, {"from": "function_call", "value": calls}, {"from": "observation", "value": "4"}, SAID]
    made = read({"conversations": turns}).messages[1]["tool_calls"]
    assert [call["function"]["name"] for call in made] == ["f", "g"]
    assert made[1]["function"]["arguments"] == '{"x": 1}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("stock(rye)", "conversations[1].value must be the JSON of a call, with name and arguments: invalid JSON"),
        (
            '{"name": "f", "kwargs": {}}',
            "conversations[1].value is a call with 'kwargs'; it may have name, arguments and id",
        ),
    ],
)
def test_broken_calls_are_refused(value: str, message: str) -> None:
    assert refusal({"conversations": [ASKED, {"from": "function_call", "value": value}, SAID]}).startswith(message)


def test_system_column_comes_first() -> None:
    assert read({"conversations": [ASKED, SAID], "system": "s"}).said == [("system", "s"), *TURN]
    own = {"from": "system", "value": "s"}
    assert read({"conversations": [own, ASKED, SAID], "system": "s"}).said == [("system", "s"), *TURN]
    message = refusal({"conversations": [own, ASKED, SAID], "system": "t"})
    assert message.startswith("column 'system' and the first message are both a system message, and differ; keep one")


@pytest.mark.parametrize("key", ["train", "loss"])
@pytest.mark.parametrize("value", [False, 0])
def test_turns_that_are_not_to_be_learned_have_weight_0(key: str, value: object) -> None:
    found = read({"conversations": [ASKED, {**SAID, key: value}, ASKED, {**SAID, key: True}]})
    assert [message.weight for message in found.rows[0].messages or ()] == [1, 0, 1, 1]


@pytest.mark.parametrize("key", ["train", "loss", "weight"])
@pytest.mark.parametrize("names", [("input", "output"), ("human", "assistant")])
@pytest.mark.parametrize("value", [False, 0, True, 1])
def test_the_weight_of_an_exchange_is_its_answer_s(key: str, names: tuple[str, str], *, value: int) -> None:
    exchange = dict(zip(names, "qa", strict=True))
    found = read({"conversation": [{**exchange, key: value}, exchange]})
    assert [message.weight for message in found.rows[0].messages or ()] == [1, int(value), 1, 1]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (
            [{"input": "q", "output": "a", "train": 1, "weight": 0}],
            "conversations[0] has both weight and train, which differ; keep weight",
        ),
        ([{"input": "q", "output": "a", "loss": 0.5}], "conversations[0].loss would change what is learned, and can't"),
        (
            [ASKED, {**SAID, "mask": [0, 1]}],
            "conversations[1].mask would change what is learned, and can't be read; remove",
        ),
        (
            [ASKED, {**SAID, "loss": 0.5}],
            "conversations[1].loss would change what is learned, and can't be read; remove it, ",
        ),
        ([{**ASKED, "images": ["x.png"]}, SAID], "conversations[0].images would change what is learned"),
        ([{**ASKED, "train": True}, SAID], "conversations[0].train is true on a message of the user, but only the"),
        ([ASKED, {**SAID, "weight": 1, "train": False}], "conversations[1] has both weight and train, which differ"),
        ([ASKED, {**SAID, "content": "b"}], "conversations[1] has both 'content' and 'value', which differ; keep one"),
        ([{"from": "narrator", "value": "q"}, SAID], "conversations[0].role must be one of system, "),
        ([{"speaker": "human", "value": "q"}, SAID], "conversations[0] has no 'role'; it has 'speaker', 'value'"),
        ([ASKED], "the last message must be the assistant's, got user"),
        (["q", "a"], "conversations[0] must be an object with role and content, got a string"),
        ("[{'from': 'human', 'value': 'q'}]", "column 'conversations' holds a list as Python prints it"),
        ('[{"from": "human", "value": "q"', "column 'conversations': invalid JSON at column 32"),
        ("q", "column 'conversations' must be a list of {role, content} objects, got a string"),
        ([], "column 'conversations' must have at least one user and one assistant message, got none"),
    ],
)
def test_turns_that_cannot_be_read_are_refused(turns: Any, message: str) -> None:
    assert refusal({"conversations": turns}).startswith(message)


def test_other_keys_are_ignored_by_name() -> None:
    found = read({"id": 1, "conversations": [{**ASKED, "lang": "en"}, {**SAID, "votes": 3, "refusal": None}]})
    assert found.ignored == ["id", "conversations[].lang", "conversations[].votes"]
