from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PLAIN_TEMPLATE, PromptFormat, PromptKind
from sienn_ray.datasets.tokenization import IGNORE_INDEX, TokenizedRow, encode, tokenize_row

EOS = "<|im_end|>"
LONG = 2_048
CONTENTS = [
    "What is Python?",
    " leading and trailing ",
    "a\nb\n",
    "\n",
    "tabs\tand  spaces",
    "日本語 🦙 é",
    "x = {'a': [1, 2]}",
    "say <|im_end|> or <|im_start|>assistant",
]


# As Gemma's: no system role, which is refused, and another name for the assistant.
NO_SYSTEM_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
# Others pass over it in silence.
DEAF_TEMPLATE = NO_SYSTEM_TEMPLATE.replace("{{ raise_exception('System role not supported') }}", "{% continue %}")
LONG_CHAT = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four\n\nlines"},
    {"role": "user", "content": "five"},
    {"role": "assistant", "content": "six"},
]
SYSTEM = {"role": "system", "content": "be brief"}


def row_of(tokenizer: Any, prompt_format: PromptFormat, *contents: str, max_length: int = LONG) -> TokenizedRow:
    """A conversation's row, the user first."""
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]
    [row] = tokenize_row(tokenizer, prompt_format, messages=messages, text=None, max_length=max_length)
    return row


def kept(row: TokenizedRow) -> TokenizedRow:
    assert row.has_answer
    return row


def labelled(tokenizer: Any, row: TokenizedRow) -> list[str]:
    """The text of each run of tokens that have labels."""
    runs: list[list[int]] = [[]]
    for label in row.labels:
        if label == IGNORE_INDEX:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture(params=["own template", "plain template"])
def chat(request: pytest.FixtureRequest, tokenizer: Any) -> PromptFormat:
    if request.param == "plain template":
        return PromptFormat(PromptKind.CHAT, PLAIN_TEMPLATE)
    return PromptFormat.for_chat(tokenizer)


@pytest.mark.parametrize("prompt", CONTENTS)
def test_prompt_has_the_same_tokens_in_training_and_at_inference(
    tokenizer: Any, chat: PromptFormat, prompt: str
) -> None:
    rendered = chat.prompt(tokenizer, [{"role": "user", "content": prompt}])
    asked = encode(tokenizer, rendered, is_start=True, kind=chat.kind)
    for completion in CONTENTS:
        row = kept(row_of(tokenizer, chat, prompt, completion))
        assert row.input_ids[: len(asked)] == asked
        assert row.labels[: len(asked)] == [IGNORE_INDEX] * len(asked)
        assert row.labels[len(asked)] == row.input_ids[len(asked)]


@pytest.mark.parametrize("completion", CONTENTS)
def test_labels_are_the_answer_and_its_end(tokenizer: Any, chat: PromptFormat, completion: str) -> None:
    row = kept(row_of(tokenizer, chat, "What is Python?", completion))
    assert labelled(tokenizer, row) == [completion + EOS]
    assert row.labels[-1] == row.input_ids[-1] == tokenizer.eos_token_id


def test_end_of_turn_is_learned_though_it_is_the_pad_token(tokenizer: Any, chat: PromptFormat) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = kept(row_of(tokenizer, chat, "a", "b", "c", "d"))
    assert row.labels.count(tokenizer.eos_token_id) == 2


def test_every_answer_has_labels_and_no_question_has(tokenizer: Any, chat: PromptFormat) -> None:
    row = kept(row_of(tokenizer, chat, "one", "two", "three", "four", "five", "six"))
    assert labelled(tokenizer, row) == ["two" + EOS, "four" + EOS, "six" + EOS]
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(row.input_ids, row.labels, strict=True))
    assert row.num_completion_tokens == sum(label != IGNORE_INDEX for label in row.labels)


def hidden(tokenizer: Any, row: TokenizedRow) -> str:
    """The text of all tokens that have no labels."""
    pairs = zip(row.input_ids, row.labels, strict=True)
    return str(tokenizer.decode([token for token, label in pairs if label == IGNORE_INDEX]))


@pytest.mark.parametrize(
    "template",
    [None, PLAIN_TEMPLATE, DEAF_TEMPLATE, NO_SYSTEM_TEMPLATE],
    ids=["own", "plain", "deaf", "without a system role"],
)
def test_mask_of_a_long_chat_with_a_system_prompt(tokenizer: Any, template: str | None) -> None:
    chat = PromptFormat(PromptKind.CHAT, template) if template else PromptFormat.for_chat(tokenizer)
    [row] = tokenize_row(tokenizer, chat, messages=[SYSTEM, *LONG_CHAT], text=None, max_length=LONG)
    kept(row)
    assert labelled(tokenizer, row) == ["two" + EOS, "four\n\nlines" + EOS, "six" + EOS]
    rest = hidden(tokenizer, row)
    assert all(question in rest for question in ("one", "three", "five"))
    assert not any(answer in rest for answer in ("two", "four", "lines", "six"))
    assert SYSTEM["content"] in rest


def test_mask_of_a_long_chat_where_the_template_has_no_system_role(tokenizer: Any) -> None:
    chat = PromptFormat(PromptKind.CHAT, NO_SYSTEM_TEMPLATE)
    [row] = tokenize_row(tokenizer, chat, messages=LONG_CHAT, text=None, max_length=LONG)
    kept(row)
    assert labelled(tokenizer, row) == ["two" + EOS, "four\n\nlines" + EOS, "six" + EOS]
    assert hidden(tokenizer, row).count("<|im_start|>model\n") == 3


def test_whole_row_reads_as_the_template_renders_it(tokenizer: Any) -> None:
    chat = PromptFormat.for_chat(tokenizer)
    row = kept(row_of(tokenizer, chat, "one", "two", "three", "four"))
    assert re.sub(r"^.*?(?=<\|im_start\|>user)", "", tokenizer.decode(row.input_ids), flags=re.DOTALL) == (
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
        "<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>"
    )


@pytest.mark.parametrize("text", CONTENTS[:3])
def test_text_has_a_label_at_every_token(tokenizer: Any, text: str) -> None:
    [row] = tokenize_row(tokenizer, PromptFormat.for_text(), messages=None, text=text, max_length=LONG)
    kept(row)
    assert row.labels == row.input_ids
    assert labelled(tokenizer, row) == [text.rstrip("\n") + EOS]
    assert row.num_completion_tokens == len(row.input_ids) - 1


def test_long_row_is_cut_at_max_length(tokenizer: Any, chat: PromptFormat) -> None:
    whole = kept(row_of(tokenizer, chat, "question", "answer " * 100))
    cut = kept(row_of(tokenizer, chat, "question", "answer " * 100, max_length=80))
    assert cut == TokenizedRow(whole.input_ids[:80], whole.labels[:80], num_cut=len(whole.input_ids) - 80)
    assert tokenizer.eos_token_id not in cut.labels


def test_row_that_just_fits_is_not_cut(tokenizer: Any, chat: PromptFormat) -> None:
    whole = kept(row_of(tokenizer, chat, "question", "answer"))
    assert row_of(tokenizer, chat, "question", "answer", max_length=len(whole.input_ids)) == whole


def test_row_is_dropped_when_its_prompt_leaves_no_room(tokenizer: Any, chat: PromptFormat) -> None:
    whole = kept(row_of(tokenizer, chat, "question", "answer"))
    num_prompt_tokens = next(index for index, label in enumerate(whole.labels) if label != IGNORE_INDEX)
    assert row_of(tokenizer, chat, "question", "answer", max_length=num_prompt_tokens).has_answer is False
    one_label = kept(row_of(tokenizer, chat, "question", "answer", max_length=num_prompt_tokens + 1))
    assert one_label.num_completion_tokens == 1


def test_text_of_one_token_is_dropped(tokenizer: Any) -> None:
    [row] = tokenize_row(tokenizer, PromptFormat.for_text(), messages=None, text=EOS, max_length=LONG)
    assert row.has_answer is False


class FramingTokenizer:
    """One token a character, and a BOS (1) and an EOS (2) around every text when asked for special tokens."""

    eos_token, eos_token_id = "$", 2

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        ids = [self.eos_token_id if character == "$" else ord(character) for character in text]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}


@pytest.mark.parametrize(
    ("text", "is_start", "kind", "expected"),
    [
        ("ab", True, PromptKind.TEXT, [1, 97, 98]),
        ("ab", False, PromptKind.TEXT, [97, 98]),
        ("ab", True, PromptKind.CHAT, [97, 98]),
        ("a$", False, PromptKind.TEXT, [97, 2]),
        ("a$", True, PromptKind.CHAT, [97, 2]),
        ("", False, PromptKind.CHAT, []),
    ],
)
def test_special_tokens_are_added_once_and_only_in_front_of_text(
    text: str, is_start: bool, kind: PromptKind, expected: list[int]
) -> None:
    assert encode(FramingTokenizer(), text, is_start=is_start, kind=kind) == expected


def test_text_ends_with_one_eos_though_the_tokenizer_adds_its_own() -> None:
    [row] = tokenize_row(FramingTokenizer(), PromptFormat.for_text(), messages=None, text="ab", max_length=LONG)
    kept(row)
    assert row.input_ids == [1, 97, 98, 2]
