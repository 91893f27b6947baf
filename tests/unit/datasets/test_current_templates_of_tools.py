"""Tools, reasoning, weights and prefixes under chat templates of current models: rendered, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.tokenization import TokenizedRow, tokenize_row
from sienn_ray.errors import InvalidDatasetError
from tests.support.current_templates import TEMPLATES, format_of

LONG = 100_000
WITHOUT_TOOLS = frozenset(
    [
        "cohere",
        "cohere2",
        "deepseek_r1_distill",
        "deepseekv3",
        "gemma",
        "gemma3",
        "idefics3",
        "lfm2",
        "llama3",
        "llava_next",
        "phi3",
        "phi3_5",
        "qwen2_5_vl",
        "smolvlm",
    ]
)
WITH_ONE_CALL_A_TURN = frozenset(["gptoss", "llama3_1", "llama3_2"])
# Of these the prompt ends the reasoning, unless a variable of the template is set.
WITH_REASONING_ENDED = frozenset(["qwen3_5_nothink"])
WITHOUT_REASONING = frozenset(
    [
        "cohere",
        "cohere2",
        "gemma",
        "gemma3",
        "gemma4",
        "gemma4_v2",
        "gemma4_v3",
        "gemma4_v4",
        "idefics3",
        "lfm2",
        "lfm2_v2",
        "llama3",
        "llama3_1",
        "llama3_2",
        "llava_next",
        "phi3",
        "phi3_5",
        "qwen2_5",
        "qwen2_5_vl",
        "qwen3_instruct_2507",
        "qwen3_vl",
        "smolvlm",
    ]
)
WITH_TOOLS = [path for path in TEMPLATES if path.stem not in WITHOUT_TOOLS]
WITH_REASONING = [path for path in TEMPLATES if path.stem not in WITHOUT_REASONING | WITH_REASONING_ENDED]
WITH_BOTH = [path for path in WITH_TOOLS if path in WITH_REASONING]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "stock_of",
            "description": "Counts the loaves on the shelf.",
            "parameters": {
                "type": "object",
                "properties": {
                    "item": {"type": "string", "description": "A kind of bread."},
                    "num_days": {"type": "integer", "description": "Days to look ahead."},
                },
                "required": ["item"],
            },
        },
    }
]


def by_name(paths: Sequence[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def call(item: str, call_id: str = "call00001") -> dict[str, Any]:
    arguments = json.dumps({"item": item, "num_days": 17})
    return {"id": call_id, "type": "function", "function": {"name": "stock_of", "arguments": arguments}}


def result(content: str, call_id: str = "call00001") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


ASKING = [
    user("Is there rye left?"),
    answer("", tool_calls=[call("rye")]),
    result("4 loaves of it"),
    answer("Four."),
    user("And spelt?"),
    answer("None at all."),
]
THINKING = [
    user("3 trays of 8?"),
    answer("24 buns.", reasoning_content="Three times eight."),
    user("And 4?"),
    answer("32 buns.", reasoning_content="Four times eight."),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def rows_of(tokenizer: Any, path: Path, messages: list[dict[str, Any]], **options: Any) -> list[TokenizedRow]:
    return tokenize_row(tokenizer, format_of(path), messages=messages, text=None, max_length=LONG, **options)


def learned(tokenizer: Any, rows: Sequence[TokenizedRow]) -> str:
    return "\n".join(tokenizer.decode([label for label in row.labels if label >= 0]) for row in rows)


def check_as_asked(
    tokenizer: Any, prompt_format: PromptFormat, messages: list[dict[str, Any]], tools: list[Any] | None
) -> None:
    """Every completion stands behind the very text that the model is asked with."""
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    asked = [prompt_format.prompt(tokenizer, messages[:index], tools=tools) for index in answers]
    found = []
    for pieces in prompt_format.examples(tokenizer, messages, tools=tools):
        before = ""
        for piece in pieces:
            if piece.is_completion:
                found.append(before)
            before += piece.text
    assert found == asked


@by_name(WITH_TOOLS)
def test_calls_are_learned_and_tools_and_results_are_read(tokenizer: Any, path: Path) -> None:
    rows = rows_of(tokenizer, path, ASKING, tools=TOOLS)
    said = learned(tokenizer, rows)
    for text in ("item", "rye", "num_days", "17", "Four.", "None at all."):
        assert said.count(text) == 1
    assert "stock_of" in said
    whole = [tokenizer.decode(row.input_ids) for row in rows]
    assert all("Counts the loaves on the shelf." in text for text in whole)
    assert "4 loaves of it" in whole[-1]
    for text in ("Counts the loaves", "4 loaves of it", "Is there rye left?", "And spelt?", '\\"item'):
        assert text not in said
    check_as_asked(tokenizer, format_of(path), ASKING, TOOLS)


@by_name([path for path in TEMPLATES if path.stem in WITHOUT_TOOLS])
def test_a_template_without_tools_refuses_them_by_name(tokenizer: Any, path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match=r"leaves (tools|calls of tools) out; choose a base model"):
        rows_of(tokenizer, path, ASKING, tools=TOOLS)
    if path.stem != "lfm2":  # which has a place for tools, but none for calls of them
        with pytest.raises(InvalidDatasetError, match="chat template leaves tools out"):
            rows_of(tokenizer, path, [user("Is there rye?"), answer("No.")], tools=TOOLS)


@by_name(WITH_TOOLS)
def test_several_calls_of_a_turn_are_learned_or_refused(tokenizer: Any, path: Path) -> None:
    messages = [
        user("Is there rye left, and oat?"),
        answer("", tool_calls=[call("rye"), call("oat", "call00002")]),
        result("4 loaves of it"),
        result("5 loaves of it", "call00002"),
        answer("Nine."),
    ]
    if path.stem in WITH_ONE_CALL_A_TURN:
        with pytest.raises(InvalidDatasetError, match=r"single tool-calls at once|leaves out calls of tools"):
            rows_of(tokenizer, path, messages, tools=TOOLS)
        return
    rows = rows_of(tokenizer, path, messages, tools=TOOLS)
    said = learned(tokenizer, rows)
    assert [said.count(text) for text in ("rye", "oat", "Nine.")] == [1, 1, 1]
    whole = tokenizer.decode(rows[-1].input_ids)
    assert "4 loaves of it" in whole
    assert "5 loaves of it" in whole


@by_name(WITH_REASONING)
def test_reasoning_is_learned_before_its_answer(tokenizer: Any, path: Path) -> None:
    said = learned(tokenizer, rows_of(tokenizer, path, THINKING))
    places = [said.index(text) for text in ("Three times eight.", "24 buns.", "Four times eight.", "32 buns.")]
    assert places == sorted(places)
    assert all(said.count(text) == 1 for text in ("Three times eight.", "24 buns.", "Four times eight.", "32 buns."))
    check_as_asked(tokenizer, format_of(path), THINKING, None)


@by_name([path for path in TEMPLATES if path.stem in WITHOUT_REASONING])
def test_a_template_without_reasoning_refuses_it_by_name(tokenizer: Any, path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match=r"leaves out the reasoning of messages\[1\].* write it"):
        rows_of(tokenizer, path, THINKING)


@by_name([path for path in TEMPLATES if path.stem in WITH_REASONING_ENDED])
def test_a_prompt_that_ends_reasoning_says_so(tokenizer: Any, path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match=r"ends the reasoning before the answer.*enable_thinking"):
        rows_of(tokenizer, path, THINKING)


@by_name(WITH_BOTH)
def test_reasoning_before_calls_is_learned(tokenizer: Any, path: Path) -> None:
    messages = [
        user("Is there rye left?"),
        answer("", tool_calls=[call("rye")], reasoning_content="I have to look."),
        result("4 loaves of it"),
        answer("Four.", reasoning_content="It says so."),
    ]
    said = learned(tokenizer, rows_of(tokenizer, path, messages, tools=TOOLS))
    places = [said.index(text) for text in ("I have to look.", "stock_of", "It says so.", "Four.")]
    assert places == sorted(places)
    check_as_asked(tokenizer, format_of(path), messages, TOOLS)


@by_name(WITH_TOOLS)
def test_special_tokens_of_tools_stay_text(tokenizer: Any, path: Path) -> None:
    def with_mark(mark: str) -> list[TokenizedRow]:
        tools = json.loads(json.dumps(TOOLS).replace("on the shelf", f"on {mark} shelf"))
        messages = [
            user("Is there rye left?"),
            answer("", tool_calls=[call(f"rye{mark}")]),
            result(f"4 {mark} loaves"),
            answer("Four."),
        ]
        return rows_of(tokenizer, path, messages, tools=tools)

    marked, plain = with_mark(tokenizer.eos_token), with_mark("the")
    assert [row.input_ids.count(tokenizer.eos_token_id) for row in marked] == [
        row.input_ids.count(tokenizer.eos_token_id) for row in plain
    ]
    assert tokenizer.decode(marked[-1].input_ids).count(f"4 {tokenizer.eos_token} loaves") == 1


@by_name(TEMPLATES)
def test_an_answer_of_weight_0_is_read_and_not_learned(tokenizer: Any, path: Path) -> None:
    messages = [user("When?"), answer("Go away.", weight=0), user("Please?"), answer("At six.")]
    (row,) = rows_of(tokenizer, path, messages)
    assert "Go away." in tokenizer.decode(row.input_ids)
    assert "Go away." not in learned(tokenizer, [row])
    assert "At six." in learned(tokenizer, [row])


@by_name(TEMPLATES)
def test_the_prefix_of_an_answer_is_read_and_not_learned(tokenizer: Any, path: Path) -> None:
    messages = [user("When?"), answer("We open", prefix=True), answer(" at six.")]
    (row,) = rows_of(tokenizer, path, messages)
    (whole,) = rows_of(tokenizer, path, [user("When?"), answer("We open at six.")])
    said = learned(tokenizer, [row])
    assert said.startswith(" at six.")
    assert "We open" not in said
    assert tokenizer.decode(row.input_ids) == tokenizer.decode(whole.input_ids)


@by_name(TEMPLATES)
def test_a_developer_s_message_is_read(tokenizer: Any, path: Path) -> None:
    developer = {"role": "developer", "content": "Sell bread."}
    (row,) = rows_of(tokenizer, path, [developer, user("When?"), answer("At six.")])
    text = tokenizer.decode(row.input_ids)
    assert text.count("Sell bread.") == 1
    # The name of a role that the base model has never seen isn't written out.
    assert "<|im_start|>developer" not in text
