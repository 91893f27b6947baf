from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PLAIN_TEMPLATE, PromptFormat, PromptKind, Segment
from sienn_ray.errors import ArtifactError, InvalidDatasetError

EOS = "<|im_end|>"
PLAIN = PromptFormat(PromptKind.CHAT, PLAIN_TEMPLATE)


def conversation(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns of user and assistant, the user first."""
    turns = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture(scope="module")
def tokenizer_without_template(tiny_model_folder: Path) -> Any:
    tokenizer = load_tokenizer(tiny_model_folder)
    tokenizer.chat_template = None
    return tokenizer


def test_own_template_of_the_base_model_is_used(tokenizer: Any) -> None:
    prompt_format = PromptFormat.for_chat(tokenizer)
    messages = conversation("Hi", system="Be brief.")
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_format == PromptFormat(PromptKind.CHAT, tokenizer.chat_template)
    assert prompt_format.prompt(tokenizer, messages) == expected


def test_base_model_without_a_template_gets_the_plain_one(tokenizer_without_template: Any) -> None:
    prompt_format = PromptFormat.for_chat(tokenizer_without_template)
    messages = conversation("Hi", "Hello.", "Bye", system="Be brief.")
    assert prompt_format == PLAIN
    assert prompt_format.prompt(tokenizer_without_template, messages) == (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.<|im_end|>\n\n"
        "### Instruction:\nBye\n\n### Response:\n"
    )


def test_plain_template_has_a_completion_that_ends_with_eos(tokenizer_without_template: Any) -> None:
    assert PLAIN.segments(tokenizer_without_template, conversation("Hi", "Hello.")) == [
        Segment("### Instruction:\nHi\n\n### Response:\n", is_completion=False),
        Segment("Hello.<|im_end|>", is_completion=True),
    ]


def test_every_answer_of_a_conversation_is_a_completion(tokenizer: Any) -> None:
    pieces = PromptFormat.for_chat(tokenizer).segments(tokenizer, conversation("a", "b", "c", "d", system="s"))
    assert pieces == [
        Segment(
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n",
            is_completion=False,
        ),
        Segment("b<|im_end|>", is_completion=True),
        Segment("\n", is_completion=False),
        Segment("<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", is_completion=False),
        Segment("d<|im_end|>", is_completion=True),
    ]


@pytest.mark.parametrize(
    "answer", ["b", "b\n", " b", "b\n\nc", "say <|im_end|> to end", "<|im_end|>", "🦙 ünï", "{{ messages }}", "{% if"]
)
@pytest.mark.parametrize("is_plain", [False, True])
def test_pieces_together_are_what_the_template_renders(tokenizer: Any, answer: str, is_plain: bool) -> None:
    prompt_format = PLAIN if is_plain else PromptFormat.for_chat(tokenizer)
    messages = conversation("a", answer)
    prompt, completion = prompt_format.segments(tokenizer, messages)
    assert prompt.text == prompt_format.prompt(tokenizer, messages[:1])
    assert completion.text == answer + EOS


def template(assistant: str) -> PromptFormat:
    """A template with this rendering of an answer; `[u]...[a]` around the user's."""
    return PromptFormat(
        PromptKind.CHAT,
        "{% for message in messages %}{% if message.role == 'user' %}[u]{{ message.content }}"
        f"{{% else %}}[a]{assistant}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}[a]{{% endif %}}",
    )


def test_template_without_an_end_of_turn_gets_eos_at_the_end(tokenizer: Any) -> None:
    pieces = template("{{ message.content + '\n' }}").segments(tokenizer, conversation("q", "r", "s", "t"))
    assert [piece.text for piece in pieces if piece.is_completion] == ["r\n", "t" + EOS]
    assert "".join(piece.text for piece in pieces) == "[u]q[a]r\n[u]s[a]t" + EOS


def test_template_that_changes_earlier_answers_is_refused(tokenizer: Any) -> None:
    forgetful = template("{% if loop.last %}{{ message.content }}{% else %}...{% endif %}")
    assert forgetful.segments(tokenizer, conversation("q", "r"))[-1] == Segment("r" + EOS, is_completion=True)
    with pytest.raises(InvalidDatasetError, match="use rows with a single answer"):
        forgetful.segments(tokenizer, conversation("q", "r", "s", "t"))


def test_template_whose_answers_do_not_begin_with_the_generation_prompt_is_refused(tokenizer: Any) -> None:
    odd = PromptFormat(
        PromptKind.CHAT,
        "{% for message in messages %}{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}[think]{% endif %}",
    )
    with pytest.raises(InvalidDatasetError, match="can't be told from prompts"):
        odd.segments(tokenizer, conversation("q", "r"))


def test_conversation_that_the_template_refuses(tokenizer: Any) -> None:
    strict = PromptFormat(PromptKind.CHAT, "{{ raise_exception('System role not supported') }}")
    with pytest.raises(InvalidDatasetError, match="refuses a conversation: System role not supported"):
        strict.segments(tokenizer, conversation("q", "r"))


def test_text_is_all_completion_and_ends_with_eos_once(tokenizer: Any) -> None:
    text = PromptFormat.for_text()
    assert text.text_segments(tokenizer, "once upon") == [Segment("once upon" + EOS, is_completion=True)]
    assert text.text_segments(tokenizer, "once upon" + EOS) == [Segment("once upon" + EOS, is_completion=True)]


def test_prompt_of_the_text_format_is_the_text(tokenizer: Any) -> None:
    assert PromptFormat.for_text().prompt(tokenizer, conversation(" once upon\n")) == " once upon\n"


@pytest.mark.parametrize(
    "prompt_format", [PLAIN, PromptFormat.for_text(), PromptFormat(PromptKind.CHAT, '{{ "é\n" }}')]
)
def test_json_round_trip(prompt_format: PromptFormat) -> None:
    assert PromptFormat.from_json(prompt_format.to_json()) == prompt_format


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"kind": "chat"}', json.dumps({"kind": "song", "chat_template": None})]
)
def test_json_that_is_no_prompt_format_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match=r"^prompt_format.json can't be read: "):
        PromptFormat.from_json(text)
