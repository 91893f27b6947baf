"""Small chat templates, each of which shows one way to take tools and reasoning, or to leave them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.literal_text import plain
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.errors import InvalidDatasetError

CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": '{"item":"rye"}'}}
QUESTION = {"role": "user", "content": "q"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}
TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def template(answer: str, *, result: str = "[t]{{ message.content }}", start: str = "") -> PromptFormat:
    """A template with this rendering of an answer and of a tool's message."""
    return PromptFormat(
        PromptKind.CHAT,
        start + "{% for message in messages %}{% if message.role in ['user', 'system'] %}[{{ message.role[0] }}]"
        "{{ message.content }}{% elif message.role == 'tool' %}" + result + "{% else %}[a]" + answer + "{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}[a]{% endif %}",
    )


def texts(prompt_format: PromptFormat, tokenizer: Any, *messages: dict[str, Any], **options: Any) -> list[str]:
    """Each example with its completions in brackets, without the end of sequence."""
    examples = prompt_format.examples(tokenizer, [QUESTION, *messages], **options)
    return [
        "".join(f"<<{plain(each.text)}>>" if each.is_completion else plain(each.text) for each in pieces).replace(
            tokenizer.eos_token, ""
        )
        for pieces in examples
    ]


def answer(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


CALLS = "{{ message.content }}{% for call in message.tool_calls %}(%s){% endfor %};"
WITH_OBJECT = CALLS.replace("%s", "{{ call.function.name }} {{ call.function.arguments | tojson }}")


class TestCalls:
    @pytest.mark.parametrize(
        ("call", "rendered"),
        [
            ("{{ call.function.name }} {{ call.function.arguments | tojson }}", 'stock {"item": "rye"}'),
            ("{{ call.function.name + ' ' + call.function.arguments }}", 'stock {"item":"rye"}'),
            ("{{ call.function.name }} {{ call.function.arguments }}", 'stock {"item":"rye"}'),
            (
                "{% set args = call.function.arguments %}{{ call.function.name }} "
                "{{ args if args is string else args | tojson }}",
                'stock {"item": "rye"}',
            ),
            (
                "{{ call.function.name }}{% for key, value in call.function.arguments.items() %} {{ key }}={{ value }}"
                "{% endfor %}",
                "stock item=rye",
            ),
        ],
    )
    def test_have_arguments_as_the_template_takes_them(self, tokenizer: Any, call: str, rendered: str) -> None:
        found = texts(template(CALLS.replace("%s", call)), tokenizer, CALLING, RESULT, answer("r"))
        assert found == [f"[u]q[a]<<({rendered});>>[t]4[a]<<r;>>"]

    @pytest.mark.parametrize(
        "content",
        [
            "{% if message.content is defined %}{{ raise_exception('no content, please') }}{% endif %}",
            "{% if message.content is not defined %}{{ raise_exception('content, please') }}{% endif %}",
        ],
    )
    def test_have_no_content_or_an_empty_one(self, tokenizer: Any, content: str) -> None:
        odd = "{% if message.tool_calls %}" + content + WITH_OBJECT + "{% else %}{{ message.content }}{% endif %}"
        assert texts(template(odd), tokenizer, CALLING) == ['[u]q[a]<<(stock {"item": "rye"});>>']

    def test_that_the_template_leaves_out_are_refused(self, tokenizer: Any) -> None:
        with pytest.raises(InvalidDatasetError, match=r"leaves calls of tools out; choose .* or write them"):
            texts(template("{{ message.content }}"), tokenizer, CALLING)

    def test_of_which_the_template_leaves_out_the_second_are_refused(self, tokenizer: Any) -> None:
        first = "{{ message.content }}{% if message.tool_calls %}{{ message.tool_calls[0] | tojson }}{% endif %}"
        twice = answer("", tool_calls=[CALL, {**CALL, "id": "c2"}])
        assert texts(template(first), tokenizer, CALLING)
        with pytest.raises(InvalidDatasetError, match=r"leaves out calls of tools of messages\[1\]"):
            texts(template(first), tokenizer, twice)

    def test_beside_which_the_template_leaves_out_contents_are_refused(self, tokenizer: Any) -> None:
        either = (
            "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% else %}{{ message.content }}{% endif %}"
        )
        assert texts(template(either), tokenizer, CALLING)
        with pytest.raises(InvalidDatasetError, match=r"leaves out the content of messages\[1\], which is the"):
            texts(template(either), tokenizer, answer("I look.", tool_calls=[CALL]))

    def test_with_marks_of_the_tokenizer_stay_text(self, tokenizer: Any) -> None:
        eos = tokenizer.eos_token
        marked = {**CALL, "function": {"name": "stock", "arguments": json.dumps({"item": eos})}}
        for call in (WITH_OBJECT, CALLS.replace("%s", "{{ call.function.name + call.function.arguments }}")):
            [pieces] = template(call).examples(tokenizer, [QUESTION, answer("", tool_calls=[marked])])
            whole = "".join(piece.text for piece in pieces)
            assert whole.count(eos) == 1  # what ends the answer
            assert plain(whole).count(eos) == 2


class TestResults:
    def test_that_the_template_leaves_out_are_refused(self, tokenizer: Any) -> None:
        with pytest.raises(InvalidDatasetError, match="leaves tools' messages out; choose a base model"):
            texts(template(WITH_OBJECT, result=""), tokenizer, CALLING, RESULT, answer("r"))

    @pytest.mark.parametrize("call_id", ["c1", None])
    def test_have_the_tool_s_name_where_the_template_needs_it(self, tokenizer: Any, call_id: str | None) -> None:
        named = template(WITH_OBJECT, result="[t]{{ message.name + ':' + message.content }}")
        result = {key: value for key, value in {**RESULT, "tool_call_id": call_id}.items() if value is not None}
        (text,) = texts(named, tokenizer, CALLING, result, answer("r"))
        assert "[t]stock:4" in text
        assert "[t]stock:4" not in texts(template(WITH_OBJECT), tokenizer, CALLING, result, answer("r"))[0]


class TestTools:
    def test_are_handed_to_the_template(self, tokenizer: Any) -> None:
        listing = template("{{ message.content }}", start="{% if tools %}{{ tools | tojson }}{% endif %}")
        (text,) = texts(listing, tokenizer, answer("r"), tools=[TOOL])
        assert text.startswith('[{"type": "function", "function": {"name": "stock"')
        assert listing.prompt(tokenizer, [QUESTION], tools=[TOOL]) == text.partition("<<")[0]
        assert texts(listing, tokenizer, answer("r"), tools=[]) == ["[u]q[a]<<r>>"]

    def test_that_the_template_leaves_out_are_refused(self, tokenizer: Any) -> None:
        silent = template("{{ message.content }}")
        with pytest.raises(InvalidDatasetError, match="leaves tools out; choose a base model"):
            texts(silent, tokenizer, answer("r"), tools=[TOOL])
        with pytest.raises(InvalidDatasetError, match="leaves tools out"):
            silent.prompt(tokenizer, [QUESTION], tools=[TOOL])
        with pytest.raises(InvalidDatasetError, match="plain text has no place for tools"):
            PromptFormat.for_text().prompt(tokenizer, [QUESTION], tools=[TOOL])


class TestReasoning:
    @pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
    def test_is_under_the_key_that_the_template_reads(self, tokenizer: Any, key: str) -> None:
        reading = "{% if message.KEY %}<think>{{ message.KEY }}</think>{% endif %}{{ message.content }};"
        found = texts(template(reading.replace("KEY", key)), tokenizer, answer("r", reasoning_content="why"))
        assert found == ["[u]q[a]<<<think>why</think>r;>>"]

    def test_is_in_the_content_where_the_template_looks_for_it_there(self, tokenizer: Any) -> None:
        looking = "{{ message.content if loop.last else message.content.split('</think>')[-1].strip() }};"
        found = texts(
            template(looking),
            tokenizer,
            answer("r", reasoning_content="why"),
            QUESTION,
            answer("s", reasoning_content="no"),
        )
        assert found == [
            "[u]q[a]<<<think>\nwhy\n</think>\n\nr;>>",
            "[u]q[a]r;[u]q[a]<<<think>\nno\n</think>\n\ns;>>",
        ]

    def test_that_the_template_leaves_out_is_refused(self, tokenizer: Any) -> None:
        with pytest.raises(InvalidDatasetError, match=r"leaves out the reasoning of messages\[1\].*, write it"):
            texts(template("{{ message.content }}"), tokenizer, answer("r", reasoning_content="why"))

    def test_within_the_content_that_the_template_leaves_out_is_refused(self, tokenizer: Any) -> None:
        dropping = template("{{ message.content.split('</think>')[-1].strip() }}")
        assert texts(dropping, tokenizer, answer("r")) == ["[u]q[a]<<r>>"]
        with pytest.raises(InvalidDatasetError, match=r"leaves out the reasoning of messages\[1\]"):
            texts(dropping, tokenizer, answer("<think>why</think>r"))

    def test_of_earlier_calls_may_be_left_out_once_the_answer_comes(self, tokenizer: Any) -> None:
        dropping = (
            "{% if message.thinking and (not messages[-1].content or loop.last or messages[-1].role == 'tool') %}"
            "({{ message.thinking }}){% endif %}" + WITH_OBJECT
        )
        calling = {**CALLING, "reasoning_content": "look"}
        found = texts(template(dropping), tokenizer, calling, RESULT, answer("r", reasoning_content="seen"))
        assert found == ['[u]q[a]<<(look)(stock {"item": "rye"});>>[t]4[a]<<(seen)r;>>']


class TestTurns:
    PLAIN = template("{{ message.content | trim }};")

    def test_an_assistant_may_begin(self, tokenizer: Any) -> None:
        greeting = [answer("Hello."), QUESTION, answer("r")]
        (pieces,) = self.PLAIN.examples(tokenizer, greeting)
        assert next(piece.text for piece in pieces if piece.is_completion).startswith("Hello.")
        (pieces,) = template(WITH_OBJECT).examples(tokenizer, [CALLING, RESULT, answer("r")])
        assert plain(pieces[1].text).startswith('(stock {"item": "rye"});')
        without = "{% if message.tool_calls %}{{ message.tool_calls }}{% else %}{{ message.content }}{% endif %}"
        with pytest.raises(InvalidDatasetError, match="can't render a conversation that the assistant begins"):
            template(without).examples(tokenizer, [CALLING, RESULT, answer("r")])

    def test_an_assistant_begins_behind_a_system_prompt_that_has_its_words(self, tokenizer: Any) -> None:
        system = template("{{ message.content | trim }};", start="[s]You are a helpful assistant.[a] is your mark.")
        (pieces,) = system.examples(tokenizer, [answer("You"), QUESTION, answer("a")])
        assert [(plain(piece.text), piece.is_completion) for piece in pieces[:2]] == [
            ("[s]You are a helpful assistant.[a] is your mark.[a]", False),
            ("You;", True),
        ]

    @pytest.mark.parametrize("content", ["|", "<", "e", "end", "[a]"])
    @pytest.mark.parametrize("asking", ["[a]", "[a]<think></think>"])
    def test_an_answer_may_have_what_is_in_the_end_mark(self, tokenizer: Any, content: str, asking: str) -> None:
        ending = template("{{ message.content | trim }}" + tokenizer.eos_token)
        ending = PromptFormat(
            PromptKind.CHAT, str(ending.chat_template).replace("%}[a]{% endif", f"%}}{asking}{{% endif")
        )
        begun = [answer(content, prefix=True), answer(content)]
        assert texts(ending, tokenizer, *begun) == [f"[u]q{asking}{content}<<{content}>>"]
        assert texts(ending, tokenizer, answer(content)) == [f"[u]q{asking}<<{content}>>"]
        assert plain(ending.continuation(tokenizer, [QUESTION, answer(content)])) == f"[u]q{asking}{content}"

    def test_nothing_of_an_answer_may_be_given(self, tokenizer: Any) -> None:
        assert self.PLAIN.continuation(tokenizer, [QUESTION, answer("")]) == "[u]q[a]"

    def test_users_may_write_twice(self, tokenizer: Any) -> None:
        assert texts(self.PLAIN, tokenizer, {"role": "user", "content": "p"}, answer("r")) == ["[u]q[u]p[a]<<r;>>"]

    def test_a_message_that_the_template_leaves_out_is_refused(self, tokenizer: Any) -> None:
        first_only = PromptFormat(
            PromptKind.CHAT,
            "{% for message in messages %}{% if message.role != 'system' or loop.first %}[{{ message.role[0] }}]"
            "{{ message.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}",
        )
        system = {"role": "system", "content": "Be brief."}
        assert texts(first_only, tokenizer, answer("r"))
        with pytest.raises(InvalidDatasetError, match=r"leaves out the content of messages\[2\], which is the"):
            texts(first_only, tokenizer, answer("r"), system, QUESTION, answer("s"))

    def test_a_message_that_the_template_writes_otherwise_is_not_left_out(self, tokenizer: Any) -> None:
        escaping = template(WITH_OBJECT, result="[t]{{ message.content | tojson }}")
        result = {**RESULT, "content": 'a\n"b"'}
        (text,) = texts(escaping, tokenizer, CALLING, result, answer("r"))
        assert r'[t]"a\n\"b\""' in text

    def test_answers_of_weight_0_are_read(self, tokenizer: Any) -> None:
        found = texts(self.PLAIN, tokenizer, answer("bad", weight=0), QUESTION, answer("r"))
        assert found == ["[u]q[a]bad;[u]q[a]<<r;>>"]
        assert texts(self.PLAIN, tokenizer, answer("r"), QUESTION, answer("bad", weight=0)) == ["[u]q[a]<<r;>>"]

    @pytest.mark.parametrize(
        ("contents", "expected"),
        [
            (("At", " six"), "[u]q[a]At<< six;>>"),
            ((" At ", "six "), "[u]q[a]At <<six;>>"),
            (("At", " six", " or so"), "[u]q[a]At six<< or so;>>"),
        ],
    )
    def test_the_prefix_of_an_answer_is_given(self, tokenizer: Any, contents: tuple[str, ...], expected: str) -> None:
        *begin, rest = contents
        messages = [*(answer(each, prefix=True) for each in begin), answer(rest)]
        assert texts(self.PLAIN, tokenizer, *messages) == [expected]
        [prompt, completion] = self.PLAIN.answer_segments(tokenizer, [QUESTION, *messages])
        assert f"{prompt.text}<<{completion.text}>>".replace(tokenizer.eos_token, "") == expected

    def test_a_developer_is_the_system_where_the_template_does_not_speak_of_it(self, tokenizer: Any) -> None:
        messages = [{"role": "developer", "content": "Be brief."}, QUESTION]
        roles = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
        unknowing = PromptFormat(PromptKind.CHAT, roles)
        knowing = PromptFormat(PromptKind.CHAT, roles + "{# developer #}")
        assert unknowing.prompt(tokenizer, messages).startswith("[system]Be brief.")
        assert knowing.prompt(tokenizer, messages).startswith("[developer]Be brief.")
