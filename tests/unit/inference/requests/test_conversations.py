"""Conversations with tools, and ones whose last message is gone on with, as the model reads them."""

from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.prompt import PLAIN_TEMPLATE, PromptFormat, PromptKind
from sienn_ray.errors import RefusedPromptError
from sienn_ray.inference.engine import ChatMessage, GenerationRequest, ToolCall
from sienn_ray.inference.requests.prompts import Prompt, PromptEncoder
from tests.unit.inference.small_tokenizers import byte_level

TOKENIZER = byte_level()
CHATML = (
    "{% if tools %}[{% for tool in tools %}{{ tool | tojson }}{% endfor %}]{% endif %}"
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.reasoning_content and loop.last %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool_call>{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}</tool_call>"
    "{% endfor %}</{{ message.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
THINKING = CHATML.replace(
    "{% if add_generation_prompt %}<assistant>", "{% if add_generation_prompt %}<assistant><think>\n"
)
TRIMMING = CHATML.replace("message.content or ''", "(message.content or '') | trim")
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "hours"}}
USER = ChatMessage("user", "Is it open?")
BEGUN = ChatMessage("assistant", "Yes, it is ")
CALLING = ChatMessage("assistant", "", tool_calls=(ToolCall("hours", '{"day": "Monday"}', "c1"),))
RESULT = ChatMessage("tool", "6-18", tool_call_id="c1")


def encoded(template: str, *messages: ChatMessage, **fields: Any) -> Prompt:
    encoder = PromptEncoder("org/base", TOKENIZER, context_tokens=None)
    return encoder.encode(GenerationRequest(messages, **fields), PromptFormat(PromptKind.CHAT, template))


def test_tools_their_calls_and_results_are_what_the_model_reads() -> None:
    text = encoded(CHATML, USER, CALLING, RESULT, tools=(TOOL,)).text
    assert text == (
        '[{"type": "function", "function": {"name": "hours"}}]<user>Is it open?</user>'
        '<assistant><tool_call>{"name": "hours", "arguments": {"day": "Monday"}}</tool_call></assistant>'
        "<tool>6-18</tool><assistant>"
    )


@pytest.mark.parametrize(
    ("messages", "fields", "word"),
    [((USER,), {"tools": (TOOL,)}, "tools"), ((USER, CALLING, RESULT), {}, "tool")],
)
def test_a_template_without_tools_refuses_them_by_name(
    messages: tuple[ChatMessage, ...], fields: dict[str, Any], word: str
) -> None:
    with pytest.raises(RefusedPromptError, match=word) as refused:
        encoded(PLAIN_TEMPLATE, *messages, **fields)
    assert refused.value.field == ("tools" if fields else "messages")


def test_reasoning_that_a_template_leaves_out_of_earlier_turns_refuses_nothing() -> None:
    thought = ChatMessage("assistant", "Yes.", reasoning_content="It is noon.")
    assert "It is noon." not in encoded(CHATML, USER, thought, USER).text
    assert encoded(PLAIN_TEMPLATE, USER, thought, USER).text.endswith("### Response:\n")


@pytest.mark.parametrize("template", [CHATML, TRIMMING, PLAIN_TEMPLATE])
def test_the_last_message_is_gone_on_with(template: str) -> None:
    whole = encoded(template, USER, ChatMessage("assistant", "Yes, it is open.")).text
    text = encoded(template, USER, BEGUN, continues=True).text
    assert text.endswith("Yes, it is ")
    assert whole.startswith(text)


def test_a_mark_in_what_is_gone_on_with_stays_text() -> None:
    text = encoded(CHATML, USER, ChatMessage("assistant", "a </assistant> b"), continues=True).text
    assert text.endswith("<assistant>a </assistant> b")


def test_plain_text_is_gone_on_with_too() -> None:
    encoder = PromptEncoder("org/base", TOKENIZER, context_tokens=None)
    request = GenerationRequest((USER, BEGUN), continues=True)
    assert encoder.encode(request, PromptFormat.for_text()).text == "Is it open?\n\nYes, it is "


@pytest.mark.parametrize(
    ("template", "messages", "continues", "begins"),
    [
        (CHATML, (USER,), False, False),
        (THINKING, (USER,), False, True),
        (CHATML, (ChatMessage("user", "What is <think>"),), False, False),
        (CHATML, (USER, ChatMessage("assistant", "<think>It is")), True, True),
        (CHATML, (USER, ChatMessage("assistant", "<think>It is</think>Yes")), True, False),
    ],
)
def test_it_is_known_whether_an_answer_begins_within_reasoning(
    template: str, messages: tuple[ChatMessage, ...], continues: bool, begins: bool
) -> None:
    assert encoded(template, *messages, continues=continues).begins_in_reasoning is begins
