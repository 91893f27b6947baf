from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.measure import HASH_BYTES, RowMeasure, measure_row
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.tokenization import IGNORE_INDEX, tokenize_pair, tokenize_row


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def chat(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    turns = [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


CHATS = [
    chat("What is Python?", "A language."),
    chat("a", "b", "c", "d", system="Be brief."),
    chat("long question " * 30, "short"),
    chat("short", "long answer " * 30),
    chat("🦙", "línea\n\nuna"),
]
TEXTS = ["Once upon a time", "x", "word " * 100, "🦙" * 20]


def measure(tokenizer: Any, row: list[dict[str, Any]] | str, max_length: int = 64) -> RowMeasure:
    if isinstance(row, str):
        return measure_row(tokenizer, PromptFormat.for_text(), StoredRow(None, row), max_length=max_length)
    return measure_row(tokenizer, PromptFormat.for_chat(tokenizer), StoredRow(row, None), max_length=max_length)


@pytest.mark.parametrize("max_length", [1, 2, 8, 16, 32, 40, 64, 100, 2_048])
@pytest.mark.parametrize("row", [*CHATS, *TEXTS])
def test_numbers_are_those_of_training(tokenizer: Any, row: list[dict[str, Any]] | str, max_length: int) -> None:
    found = measure(tokenizer, row, max_length)
    is_text = isinstance(row, str)
    options: dict[str, Any] = {"messages": None, "text": row} if is_text else {"messages": row, "text": None}
    prompt_format = PromptFormat.for_text() if is_text else PromptFormat.for_chat(tokenizer)
    [whole] = tokenize_row(tokenizer, prompt_format, **options, max_length=sys.maxsize)
    [cut] = tokenize_row(tokenizer, prompt_format, **options, max_length=max_length)
    num_completion = sum(label != IGNORE_INDEX for label in whole.labels)
    assert found.num_completion_tokens == num_completion
    assert found.num_prompt_tokens == len(whole.input_ids) - num_completion
    assert found.is_dropped is not cut.has_answer


@pytest.mark.parametrize("max_length", [1, 16, 40, 64, 2_048])
@pytest.mark.parametrize("rejected", ["x", "long answer " * 50])
@pytest.mark.parametrize("row", CHATS)
def test_numbers_of_a_pair_are_those_of_its_longer_side(
    tokenizer: Any, row: list[dict[str, Any]], rejected: str, max_length: int
) -> None:
    prompt_format = PromptFormat.for_chat(tokenizer)
    options: dict[str, Any] = {"messages": row, "rejected": {"role": "assistant", "content": rejected}}
    found = measure_row(tokenizer, prompt_format, StoredRow(**options, text=None), max_length=max_length)
    whole = tokenize_pair(tokenizer, prompt_format, **options, max_length=sys.maxsize)
    longer = max(whole.chosen, whole.rejected, key=lambda side: len(side.input_ids))
    assert found.num_completion_tokens == longer.num_completion_tokens
    assert found.num_prompt_tokens + found.num_completion_tokens == len(longer.input_ids)
    cut = tokenize_pair(tokenizer, prompt_format, **options, max_length=max_length)
    assert found.is_dropped is not (cut.chosen.has_answer and cut.rejected.has_answer)


def test_rejected_answer_belongs_to_the_row(tokenizer: Any) -> None:
    prompt_format = PromptFormat.for_chat(tokenizer)

    def measured(rejected: str | None) -> RowMeasure:
        answer = None if rejected is None else {"role": "assistant", "content": rejected}
        row = StoredRow(chat("ab", "cde"), None, rejected=answer)
        return measure_row(tokenizer, prompt_format, row, max_length=64)

    assert [measured(rejected).num_chars for rejected in (None, "f", "gh")] == [5, 6, 7]
    assert len({measured(rejected).hash for rejected in (None, "f", "gh", "f")}) == 3


def test_characters_are_those_of_the_row_alone(tokenizer: Any) -> None:
    assert measure(tokenizer, chat("ab", "cde", system="f")).num_chars == 6
    assert measure(tokenizer, "🦙é").num_chars == 2


def test_equal_rows_have_equal_hashes_and_others_do_not(tokenizer: Any) -> None:
    rows: list[Any] = [
        chat("a", "b"),
        chat("a", "b", system=""),
        chat("a", "b", "c", "d"),
        chat("b", "a"),
        chat("a", "b "),
        chat("ab", "c"),
        chat("a", "bc"),
        chat("a:1:b", "c"),
        "a",
        "b",
        "a\0",
    ]
    hashes = [measure(tokenizer, row).hash for row in rows]
    assert {len(value) for value in hashes} == {HASH_BYTES}
    assert len(set(hashes)) == len(rows)
    assert [measure(tokenizer, json.loads(json.dumps(row))).hash for row in rows] == hashes


def test_all_that_a_row_says_is_measured_and_tells_rows_apart(tokenizer: Any) -> None:
    def answer(**fields: Any) -> StoredRow:
        return StoredRow([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **fields}], None)

    rows = [
        answer(),
        answer(weight=0),
        answer(reasoning_content="because"),
        answer(tool_calls=[{"type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        replace(answer(), tools=[{"type": "function", "function": {"name": "f"}}]),
        replace(answer(), label=True),
        replace(answer(), label=False),
        replace(answer(), chat_template_kwargs={"enable_thinking": False}),
    ]
    template = (
        "{{ tools | tojson }}{% for message in messages %}{% if message.role == 'assistant' %}[a]{% endif %}"
        "{{ message.reasoning_content }}{{ message.content }}{{ message.tool_calls | default([]) | tojson }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}{% if enable_thinking %}{% endif %}"
    )
    prompt_format = PromptFormat(PromptKind.CHAT, template)
    found = [measure_row(tokenizer, prompt_format, row, max_length=64) for row in rows]
    assert len({each.hash for each in found}) == len(rows)
    assert found[0].num_chars == 2
    assert found[2].num_chars == 2 + len("because")
    assert found[4].num_chars > 20
    assert found[1].num_completion_tokens == 0
