from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.literal_text import plain
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
    assert PLAIN.examples(tokenizer_without_template, conversation("Hi", "Hello.")) == [
        [
            Segment("### Instruction:\nHi\n\n### Response:\n", is_completion=False),
            Segment("Hello.<|im_end|>", is_completion=True),
        ]
    ]


def test_every_answer_of_a_conversation_is_a_completion(tokenizer: Any) -> None:
    [pieces] = PromptFormat.for_chat(tokenizer).examples(tokenizer, conversation("a", "b", "c", "d", system="s"))
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
    [[prompt, completion]] = prompt_format.examples(tokenizer, messages)
    assert prompt.text == prompt_format.prompt(tokenizer, messages[:1])
    assert plain(completion.text) == answer + EOS


def template(assistant: str) -> PromptFormat:
    """A template with this rendering of an answer; `[u]...[a]` around the user's."""
    return PromptFormat(
        PromptKind.CHAT,
        "{% for message in messages %}{% if message.role == 'user' %}[u]{{ message.content }}"
        f"{{% else %}}[a]{assistant}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}[a]{{% endif %}}",
    )


def test_template_without_an_end_of_turn_gets_eos_at_the_end(tokenizer: Any) -> None:
    [pieces] = template("{{ message.content + '\n' }}").examples(tokenizer, conversation("q", "r", "s", "t"))
    assert [piece.text for piece in pieces if piece.is_completion] == ["r\n", "t" + EOS]
    assert "".join(piece.text for piece in pieces) == "[u]q[a]r\n[u]s[a]t" + EOS


def texts(examples: list[list[Segment]]) -> list[str]:
    """Each example with its completions in brackets."""
    return [
        "".join(f"<<{plain(piece.text)}>>" if piece.is_completion else plain(piece.text) for piece in pieces)
        for pieces in examples
    ]


def test_answers_that_are_rendered_otherwise_later_are_examples_of_their_own(tokenizer: Any) -> None:
    thinking = template("{% if loop.last %}(thought){% endif %}{{ message.content }};")
    assert texts(thinking.examples(tokenizer, conversation("q", "r", "s", "t"))) == [
        f"[u]q[a]<<(thought)r;{EOS}>>",
        f"[u]q[a]r;[u]s[a]<<(thought)t;{EOS}>>",
    ]
    # Where only the last turn ends otherwise, too.
    ending = template("{{ message.content }}{% if loop.last %}<return>{% else %}<end>{% endif %}")
    assert texts(ending.examples(tokenizer, conversation("q", "r", "s", "t"))) == [
        f"[u]q[a]<<r<return>{EOS}>>",
        f"[u]q[a]r<end>[u]s[a]<<t<return>{EOS}>>",
    ]


@pytest.mark.parametrize(
    ("opens", "renders", "answer", "learned"),
    [
        ("[a]<think>\n", "[a]{{ message.content.split('</think>')[-1].strip() }}", "r", "\n</think>\n\nr"),
        (
            "[a]<think>\n",
            "[a]{{ message.content.split('</think>')[-1].strip() }}",
            "<think>\nbecause\n</think>\n\nr",
            "because\n</think>\n\nr",
        ),
        ("[a]<think>\n", "[a]<think></think>{{ message.content }}", "r", "</think>r"),
        ("[a]<think>\n", "[a]<think>\n\n</think>\n\n{{ message.content }}", "r", "\n</think>\n\nr"),
        ("[a]", "[a]<think>\n\n</think>\n\n{{ message.content }}", "r", "<think>\n\n</think>\n\nr"),
        ("[think]", "{{ message.content }}", "r", "r"),
        # What answers begin with isn't what the prompt opens.
        ("[a]<think>\n", "[a]{{ message.content }}", "<table>r</table>", "\n</think>\n\n<table>r</table>"),
        ("[a]<think>\n", "[a]{{ message.content }}", "<b>r</b>", "\n</think>\n\n<b>r</b>"),
        ("[a] ", "[a]{{ message.content }}", "r", "r"),
    ],
)
def test_an_answer_goes_on_from_the_prompt_as_the_model_is_asked(
    tokenizer: Any, opens: str, renders: str, answer: str, learned: str
) -> None:
    odd = PromptFormat(
        PromptKind.CHAT,
        "{% for message in messages %}{% if message.role == 'user' %}[u]{{ message.content }}{% else %}"
        f"{renders}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{opens}{{% endif %}}",
    )
    messages = conversation("q", answer)
    [[prompt, completion]] = odd.examples(tokenizer, messages)
    assert prompt.text == odd.prompt(tokenizer, messages[:1])
    assert completion.text == learned + EOS


def test_an_answer_that_does_not_go_on_from_the_prompt_is_refused(tokenizer: Any) -> None:
    odd = PromptFormat(
        PromptKind.CHAT,
        "{% if add_generation_prompt %}[asked]{% else %}[answered]{% endif %}"
        "{% for message in messages %}{{ message.content }}{% endfor %}",
    )
    with pytest.raises(InvalidDatasetError, match="renders a prompt differently once it is answered"):
        odd.examples(tokenizer, conversation("q", "r"))


PARTS = "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"


@pytest.mark.parametrize("contents", [PARTS, "{{ message.content[0].text }}"])
def test_contents_are_parts_where_the_template_wants_them(tokenizer: Any, contents: str) -> None:
    vision = template(contents)
    form = str(vision.chat_template).replace("[u]{{ message.content }}", f"[u]{contents}")
    vision = PromptFormat(PromptKind.CHAT, form)
    assert texts(vision.examples(tokenizer, conversation("q", "r"))) == [f"[u]q[a]<<r{EOS}>>"]
    assert vision.prompt(tokenizer, conversation("q")) == "[u]q[a]"


@pytest.mark.parametrize("system", ["{{ raise_exception('no system') }}", ""])
def test_a_system_message_goes_before_the_first_user_s_where_the_template_has_no_place_for_it(
    tokenizer: Any, system: str
) -> None:
    without = PromptFormat(
        PromptKind.CHAT,
        "{% for message in messages %}{% if message.role == 'system' %}" + system + "{% elif message.role == 'user' %}"
        "[u]{{ message.content }}{% else %}[a]{{ message.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}",
    )
    messages = conversation("q", "r", system="Be brief.")
    assert texts(without.examples(tokenizer, messages)) == [f"[u]Be brief.\n\nq[a]<<r{EOS}>>"]
    assert without.prompt(tokenizer, messages[:2]) == "[u]Be brief.\n\nq[a]"


def test_a_template_that_leaves_out_what_messages_say_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidDatasetError, match="leaves out what messages say"):
        template("...").examples(tokenizer, conversation("q", "r"))


def test_conversation_that_the_template_refuses(tokenizer: Any) -> None:
    strict = PromptFormat(PromptKind.CHAT, "{{ raise_exception('System role not supported') }}")
    with pytest.raises(InvalidDatasetError, match="refuses a conversation: System role not supported"):
        strict.examples(tokenizer, conversation("q", "r"))


def test_text_is_all_completion_and_ends_with_eos_once(tokenizer: Any) -> None:
    text = PromptFormat.for_text()
    assert text.text_segments(tokenizer, "once upon") == [Segment("once upon" + EOS, is_completion=True)]
    for end in (EOS, EOS + "\n"):
        assert text.text_segments(tokenizer, "once upon" + end) == [Segment("once upon" + EOS, is_completion=True)]


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
