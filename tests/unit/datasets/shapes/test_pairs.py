"""A prompt and its completion, under the names that people have for them and with what stands beside them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.datasets.shapes.reading import Row, read, refusal

TURN = [("user", "q"), ("assistant", "a")]
WITH_CONTEXT = [("user", "q\n\nc"), ("assistant", "a")]
PROMPT = [{"role": "user", "content": "q"}]
COMPLETION = [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"input": "q", "output": "a"}, "prompt-completion"),
        ({"Input ": "q", "OUTPUT": "a"}, "prompt-completion"),
        ({"prompt": "q", "response": "a"}, "prompt-completion"),
        ({"prompt": "q", "answer": "a"}, "prompt-completion"),
        ({"query": "q", "response": "a", "history": []}, "instruction-response"),
        ({"query": "q", "answer": "a"}, "instruction-response"),
        ({"instruction": "q", "completion": "a"}, "instruction-response"),
        ({"instruction": "q", "answer": "a"}, "instruction-response"),
        ({"instruction": "q", "input": "", "completion": "a"}, "instruction-input-response"),
        ({"question": "q", "response": "a"}, "question-answer"),
        ({"question": "q", "output": "a"}, "question-answer"),
        ({"problem": "q", "solution": "a"}, "question-answer"),
        ({"user": "q", "assistant": "a"}, "prompt-completion"),
        ({"human": "q", "gpt": "a"}, "prompt-completion"),
        ({"inputs": "q", "targets": "a"}, "prompt-completion"),
        ({"user": "u17", "question": "q", "answer": "a"}, "question-answer"),
        ({"text": "q a", "input": "q", "output": "a"}, "prompt-completion"),
    ],
)
def test_both_sides_have_many_names(row: Row, expected: str) -> None:
    found = read(row)
    assert (found.format, found.said) == (expected, TURN)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "q", "context": "c", "response": "a", "category": "open_qa"},
        {"question": "q", "context": "c", "answer": "a"},
        {"question": "q", "passage": "c", "answer": "a"},
        {"question": "q", "contexts": ["c"], "answer": "a"},
        {"question": "q", "contexts": '["c"]', "answer": "a"},
        {"query": "q", "context": "c", "response": "a"},
        {"prompt": "q", "input": "c", "completion": "a"},
        {"title": "t", "question": "q", "context": "c", "answers": {"text": ["a"], "answer_start": [3]}},
        {"question": "q", "context": "c", "answers": '{"text": ["a"], "answer_start": [3]}'},
        {"question": "q", "context": "c", "answers": ["a"]},
    ],
)
def test_context_stands_behind_the_prompt(row: Row) -> None:
    assert read(row).said == WITH_CONTEXT


@pytest.mark.parametrize("context", ["", " ", None, "\u200b", []])
def test_empty_context_leaves_nothing(context: object) -> None:
    assert read({"instruction": "q", "context": context, "response": "a"}).said == TURN


def test_several_contexts_follow_each_other() -> None:
    row = {"instruction": "q", "input": "i", "contexts": ["c1", "c2"], "output": "a"}
    assert read(row).said[0] == ("user", "q\n\ni\n\nc1\n\nc2")


def test_of_several_answers_the_first_is_learned_and_this_is_said() -> None:
    rows = [
        {"question": "q", "context": "c", "answers": {"text": ["a", more], "answer_start": [1, 2]}} for more in "ab"
    ]
    found = read(*rows)
    assert found.said == WITH_CONTEXT
    assert found.notes == ["line 2 has several answers, of which the first is learned"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "context": {"a": "b"}, "answer": "a"}, "column 'context' must be a string, got an object"),
        ({"question": "q", "context": 7, "answer": "a"}, "column 'context' must be a string, got a number"),
        ({"question": "q", "contexts": ["c", 7], "answer": "a"}, "column 'contexts'[1] must be a string, got a number"),
        (
            {"question": "q", "answers": {"text": [], "answer_start": []}},
            "column 'answers.text' has no answer; add one",
        ),
        ({"question": "q", "answers": {"value": "a"}}, "column 'answers' must be a string, got an object"),
        ({"question": "q", "answers": "{'text': ['a']}"}, "column 'answers' holds a list as Python prints it"),
        ({"input": "", "output": "a"}, "column 'input' must not be blank; fill it in or remove the row; completions"),
    ],
)
def test_what_is_no_text_is_refused(row: Row, message: str) -> None:
    assert refusal(row).startswith(message)


@pytest.mark.parametrize("history", [[["x", "y"], ["z", "w"]], '[["x", "y"], ["z", "w"]]'])
@pytest.mark.parametrize("names", [("instruction", "output"), ("query", "response"), ("prompt", "completion")])
def test_history_and_system_come_before_the_prompt(names: tuple[str, str], history: object) -> None:
    found = read({names[0]: "q", names[1]: "a", "system": "s", "history": history})
    earlier = [("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "z"), ("assistant", "w")]
    assert found.said == [*earlier, *TURN]


@pytest.mark.parametrize(
    "history",
    [
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}],
        [{"prompt": "x", "response": "y"}],
    ],
)
def test_history_may_be_messages(history: object) -> None:
    assert read({"query": "q", "response": "a", "history": history}).said == [("user", "x"), ("assistant", "y"), *TURN]


@pytest.mark.parametrize("nothing", [None, "", [], "  "])
def test_empty_history_and_system_say_nothing(nothing: object) -> None:
    assert read({"instruction": "q", "output": "a", "history": nothing, "system": nothing}).said == TURN


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (["x", "y"], "history[0] must be a list of a question and an answer, got a string"),
        ([["x", "y", "z"]], "history[0] must be a list of a question and an answer, got 3 items"),
        ([["x", 7]], "history[0][1] must be a string, got a number"),
        ("earlier", "column 'history' must be a list of [question, answer] pairs, got a string"),
        ("[('x', 'y')]", "column 'history': invalid JSON at column 2"),
        (
            "[['x', 'y']]",
            "column 'history' holds a list as Python prints it, in single quotes; write it by json.dumps()",
        ),
    ],
)
def test_broken_history_is_refused(history: object, message: str) -> None:
    assert refusal({"instruction": "q", "output": "a", "history": history}).startswith(message)


@pytest.mark.parametrize("name", ["system", "system_prompt", "System_Message"])
def test_system_has_many_names(name: str) -> None:
    assert read({name: "s", "question": "q", "response": "a"}).said == [("system", "s"), *TURN]


def test_two_system_columns_that_differ_are_refused() -> None:
    assert read({"system": "s", "system_prompt": "s", "question": "q", "answer": "a"}).said[0] == ("system", "s")
    message = refusal({"system": "s", "system_prompt": "t", "question": "q", "answer": "a"})
    assert message.startswith(
        "columns 'system' and 'system_prompt' differ, and both are the row's system; have one left"
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "Complex_CoT", "chain_of_thought"])
def test_reasoning_goes_to_the_answer(name: str) -> None:
    found = read({"Question": "q", name: "r", "Response": "a"})
    assert found.messages[-1] == {"role": "assistant", "content": "a", "reasoning_content": "r"}


def test_tools_and_template_variables_go_with_the_row() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    row = read(
        {"prompt": "q", "completion": "a", "tools": [tool], "chat_template_kwargs": {"enable_thinking": False}}
    ).rows[0]
    assert (row.tools, row.chat_template_kwargs) == (
        '[{"type": "function", "function": {"name": "f", "parameters": {}}}]',
        '{"enable_thinking": false}',
    )


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (PROMPT, COMPLETION),
        (PROMPT, "a"),
        ("q", COMPLETION),
        ("q", COMPLETION[0]),
        ([{"from": "human", "value": "q"}], [{"from": "gpt", "value": "a"}]),
    ],
)
def test_both_sides_may_be_messages(prompt: object, completion: object) -> None:
    found = read({"prompt": prompt, "completion": completion})
    assert (found.format, found.said) == ("prompt-completion", TURN)


AS_JSON: dict[str, Any] = {
    "prompt": '[{"role": "user", "content": "q"}]',
    "completion": '{"from": "gpt", "value": "a"}',
}


def test_messages_as_json_are_read_where_all_fields_are_strings() -> None:
    found = read({"prompt": "x", "completion": "y"}, AS_JSON, are_strings=True)
    assert found.said == TURN
    assert found.notes[0].startswith("column 'prompt' of line 2 holds messages as JSON, which were read as such")
    call = '{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]}'
    (made,) = read({"prompt": "x", "completion": call}, are_strings=True).messages[1]["tool_calls"]
    assert made["function"] == {"name": "f", "arguments": "{}"}


def test_messages_as_json_are_text_where_lists_can_be_written() -> None:
    found = read(AS_JSON)
    assert found.said == [("user", AS_JSON["prompt"]), ("assistant", AS_JSON["completion"])]
    assert found.notes == []


@pytest.mark.parametrize("are_strings", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        '{"from": "Paris", "to": "Rome"}',
        '{"from": "Paris", "value": "Rome"}',
        '{"role": "admin", "content": "x"}',
        '{"role": "user", "name": "Ann"}',
        '{"role": "user", "content": 7}',
        '[{"role": "user", "content": "x", "sentiment": "good"}]',
        '[{"role": "user", "content": "x"}, "y"]',
        '[{"role": "user", "content": "x"}] is what?',
        '[{"from": "A", "to": "B"}]',
        '{"role": "admin"} explain',
        '{"value": 7}',
        '{"content": "x"}',
        "[]",
        "{'role': 'user'}",
    ],
)
def test_json_that_is_no_messages_stays_text(text: str, *, are_strings: bool) -> None:
    found = read({"instruction": text, "output": text}, are_strings=are_strings)
    assert (found.said, found.notes) == ([("user", text), ("assistant", text)], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{'role': 'user', 'content': 'q'}]", "column 'prompt' holds a list as Python prints it"),
        ('[{"role": "user", "content": "q"', "column 'prompt': invalid JSON at column 33"),
    ],
)
def test_messages_that_are_no_json_are_refused_where_all_fields_are_strings(text: str, message: str) -> None:
    assert refusal({"prompt": text, "completion": "a"}, are_strings=True).startswith(message)
    assert read({"prompt": text, "completion": "a"}).said[0] == ("user", text)


@pytest.mark.parametrize("text", ["[1] Paris is in France.", "{name} is here", '["a", 7]', '{"a": "b"}', "[x] 'y'"])
@pytest.mark.parametrize("column", ["context", "contexts", "passage"])
def test_context_that_is_no_list_of_texts_is_a_text(column: str, text: str) -> None:
    assert read({"question": "q", column: text, "answer": "a"}).said[0] == ("user", f"q\n\n{text}")


@pytest.mark.parametrize("text", ["[laughs] yes", "{name} is", '{"text": "x"}', '["a", 7]', "[1, 2]", '["a"'])
def test_answers_that_are_no_list_of_texts_are_one_text(text: str) -> None:
    assert read({"question": "q", "answers": text}).said[1] == ("assistant", text)


def test_answers_in_the_prompt_are_not_learned() -> None:
    earlier = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    found = read({"prompt": [*earlier, *PROMPT], "completion": COMPLETION})
    assert [message.weight for message in found.rows[0].messages or ()] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": PROMPT, "context": "c", "completion": "a"}, "column 'context' can't be put behind column 'prompt'"),
        ({"prompt": "q", "reasoning": "r", "completion": COMPLETION}, "column 'reasoning' can't be read beside column"),
        (
            {"prompt": [*PROMPT, {**COMPLETION[0], "weight": 1}], "completion": "a"},
            "a message of the prompt has weight 1",
        ),
        ({"prompt": PROMPT, "completion": PROMPT}, "the last message must be the assistant's, got user"),
        ({"prompt": ["q"], "completion": "a"}, "column 'prompt' must be a string, got a list"),
    ],
)
def test_messages_that_do_not_fit_are_refused(row: Row, message: str) -> None:
    assert refusal(row).startswith(message)


@pytest.mark.parametrize("text", ['{"name": "x"}', "[1, 2]", "{not json", "['a']", '{"role"', "[INST]"])
def test_texts_that_look_like_json_stay_texts(text: str) -> None:
    assert read({"prompt": text, "completion": text}).said == [("user", text), ("assistant", text)]


@pytest.mark.parametrize("text", ["NaN", "nan", "None", "null", "<NA>", "#N/A", " N/A "])
def test_a_missing_value_that_a_program_wrote_is_said(text: str) -> None:
    found = read({"prompt": "q", "completion": "a"}, *2 * [{"prompt": "q", "completion": text}])
    assert found.said[-1] == ("assistant", text)
    (note,) = found.notes
    assert note.startswith(
        f"the answer of line 2 and 1 more is {text!r}, as programs write a missing value; it is learned"
    )


@pytest.mark.parametrize("text", ["nan", "None", "<NA>"])
@pytest.mark.parametrize("column", ["input", "context", "system", "reasoning"])
def test_a_missing_value_beside_both_sides_is_said(column: str, text: str) -> None:
    rows = [{"instruction": "q", column: value, "output": "a long enough answer"} for value in ("", text, text)]
    assert read(*rows).notes == [
        f"column '{column}' is {text!r} in line 2 and 1 more, as programs write a missing value; it is read as it is, "
        "so leave it empty where nothing is meant"
    ]


@pytest.mark.parametrize("column", ["tools", "functions", "history", "chat_template_kwargs"])
def test_a_missing_value_for_a_list_is_refused_with_the_way_out(column: str) -> None:
    row = {"instruction": "q", column: "nan", "output": "a"}
    assert refusal(row) == (
        f"column '{column}' is 'nan', as programs write a missing value; leave it empty where nothing is meant, or "
        f'have the column left out by columns={{"{column}": "ignore"}}'
    )
    assert read(row, columns={column: "ignore"}).said == TURN


@pytest.mark.parametrize("text", ["Nan is my aunt.", "no", "nullable", "0"])
def test_other_short_answers_are_nothing_special(text: str) -> None:
    assert read({"prompt": "q", "completion": text}).notes == []


def test_rows_may_lack_what_stands_beside() -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "c", "output": "a"},
        {"output": "a", "instruction": "q", "system": "s"},
    ]
    assert read(*rows[:1]).said == TURN
    assert read(*rows[:2]).said == WITH_CONTEXT
    assert read(*rows).said == [("system", "s"), *TURN]
