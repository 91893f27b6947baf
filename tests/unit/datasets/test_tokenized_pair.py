"""Preference rows as tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PLAIN_TEMPLATE, PromptFormat, PromptKind
from sienn_ray.datasets.tokenization import (
    IGNORE_INDEX,
    TokenizedPair,
    TokenizedRow,
    encode,
    tokenize_pair,
    tokenize_row,
)

EOS = "<|im_end|>"
LONG = 2_048
# Renders earlier answers without the thoughts that the last one has, as some reasoning models' templates do.
FORGETFUL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '(thought)' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture(params=["own template", "plain template"])
def chat(request: pytest.FixtureRequest, tokenizer: Any) -> PromptFormat:
    if request.param == "plain template":
        return PromptFormat(PromptKind.CHAT, PLAIN_TEMPLATE)
    return PromptFormat.for_chat(tokenizer)


def conversation(*contents: str) -> list[dict[str, str]]:
    """A conversation with a system message, the user second."""
    turns = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]
    return [{"role": "system", "content": "be brief"}, *turns]


def answer(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def pair_of(
    tokenizer: Any, chat: PromptFormat, *contents: str, rejected: str = "no", max_length: int = LONG
) -> TokenizedPair:
    messages = conversation(*contents)
    return tokenize_pair(tokenizer, chat, messages=messages, rejected=answer(rejected), max_length=max_length)


def kept(pair: TokenizedPair) -> TokenizedPair:
    assert pair.chosen.has_answer
    assert pair.rejected.has_answer
    return pair


def labelled(tokenizer: Any, row: TokenizedRow) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORE_INDEX]))


def num_prompt_tokens(row: TokenizedRow) -> int:
    return next(index for index, label in enumerate(row.labels) if label != IGNORE_INDEX)


def test_each_side_of_one_turn_is_the_row_it_would_be_alone(tokenizer: Any, chat: PromptFormat) -> None:
    pair = kept(pair_of(tokenizer, chat, "question", "yes indeed", rejected="no 🦙\n"))
    for side, answer in ((pair.chosen, "yes indeed"), (pair.rejected, "no 🦙\n")):
        [alone] = tokenize_row(tokenizer, chat, messages=conversation("question", answer), text=None, max_length=LONG)
        assert side == alone


def test_only_the_last_answer_has_labels(tokenizer: Any, chat: PromptFormat) -> None:
    pair = kept(pair_of(tokenizer, chat, "one", "two", "three", "four", rejected="five"))
    assert labelled(tokenizer, pair.chosen) == "four" + EOS
    assert labelled(tokenizer, pair.rejected) == "five" + EOS
    assert "two" in tokenizer.decode(pair.rejected.input_ids)
    for side in (pair.chosen, pair.rejected):
        assert side.labels[-1] == side.input_ids[-1] == tokenizer.eos_token_id


def test_both_sides_begin_with_the_prompt_as_the_model_is_asked(tokenizer: Any, chat: PromptFormat) -> None:
    messages = conversation("one", "two", "three", "four")
    asked = encode(tokenizer, chat.prompt(tokenizer, messages[:-1]), is_start=True, kind=chat.kind)
    pair = kept(tokenize_pair(tokenizer, chat, messages=messages, rejected=answer("five"), max_length=LONG))
    for side in (pair.chosen, pair.rejected):
        assert side.input_ids[: num_prompt_tokens(side)] == asked


def test_each_side_is_cut_at_max_length(tokenizer: Any, chat: PromptFormat) -> None:
    whole = kept(pair_of(tokenizer, chat, "question", "yes", rejected="word " * 100))
    max_length = len(whole.chosen.input_ids)
    cut = kept(pair_of(tokenizer, chat, "question", "yes", rejected="word " * 100, max_length=max_length))
    assert cut.chosen == whole.chosen
    num_cut = len(whole.rejected.input_ids) - max_length
    assert cut.rejected == TokenizedRow(
        whole.rejected.input_ids[:max_length], whole.rejected.labels[:max_length], num_cut
    )


def test_pair_is_dropped_when_its_prompt_leaves_no_room(tokenizer: Any, chat: PromptFormat) -> None:
    """Though there is room for an answer of an earlier turn."""
    contents = ("one", "two", "three", "four")
    length = num_prompt_tokens(kept(pair_of(tokenizer, chat, *contents)).chosen)
    assert pair_of(tokenizer, chat, *contents, max_length=length).chosen.has_answer is False
    pair = kept(pair_of(tokenizer, chat, *contents, max_length=length + 1))
    assert [side.num_completion_tokens for side in (pair.chosen, pair.rejected)] == [1, 1]


def test_earlier_answers_may_be_rendered_differently(tokenizer: Any) -> None:
    chat = PromptFormat(PromptKind.CHAT, FORGETFUL_TEMPLATE)
    pair = kept(pair_of(tokenizer, chat, "one", "two", "three", "four"))
    assert labelled(tokenizer, pair.chosen) == "(thought)four" + EOS
    assert labelled(tokenizer, pair.rejected) == "(thought)no" + EOS
