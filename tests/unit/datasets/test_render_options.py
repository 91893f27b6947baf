"""Variables of chat templates, per job and per request, and special tokens in rows of plain text."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.chat_turns import turns_of
from sienn_ray.datasets.measure import sides_of
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.render_options import (
    MAX_VARIABLES,
    RESERVED_NAMES,
    RenderOptions,
    TemplateVariables,
    checked_values,
)
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.statistics_schema import StatisticsRequest
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.tokenization import tokenize_pair, tokenize_row
from sienn_ray.errors import ArtifactError, InvalidInputError
from sienn_ray.inference.engine import GenerationRequest
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.training.publication import base_model_facts
from tests.unit.inference.small_tokenizers import byte_level

# As Qwen3 has it: an empty block of reasoning where there is to be none.
THINKING = (
    "{%- macro told(role) %}<|{{ role }} {{ style | default('plain') }}|>{% endmacro %}"
    "{% for message in messages %}{{ told(message['role']) + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ told('assistant') }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
VALUES = {"enable_thinking": False, "style": 'a "b"\n{{ x }} 日🚀'}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = byte_level()
    tokenizer.chat_template = THINKING
    return tokenizer


def chat(tokenizer: Any, **values: Any) -> PromptFormat:
    return PromptFormat.for_chat(tokenizer, RenderOptions(TemplateVariables.of(values)))


def test_the_rows_are_rendered_with_the_values(tokenizer: Any) -> None:
    [pieces] = chat(tokenizer, enable_thinking=False, style="kind").examples(tokenizer, MESSAGES)
    learned = "".join(piece.text for piece in pieces if piece.is_completion)
    read = "".join(piece.text for piece in pieces if not piece.is_completion)
    assert read + learned == (
        f"<|user kind|>Why?{tokenizer.eos_token}<|assistant kind|><think>\n\n</think>\n\nSo.{tokenizer.eos_token}"
    )


def test_the_model_is_asked_with_them(tokenizer: Any) -> None:
    encoder = PromptEncoder("org/base", tokenizer, context_tokens=None)
    own = chat(tokenizer, enable_thinking=False, style="kind")
    asked = encoder.encode(GenerationRequest.ask("Why?"), own).text
    assert asked == f"<|user kind|>Why?{tokenizer.eos_token}<|assistant kind|><think>\n\n</think>\n\n"
    over = GenerationRequest.ask("Why?", template_variables={"enable_thinking": True})
    assert encoder.encode(over, own).text == f"<|user kind|>Why?{tokenizer.eos_token}<|assistant kind|>"
    assert encoder.encode(over).text == f"<|user plain|>Why?{tokenizer.eos_token}<|assistant plain|>"


def test_a_request_for_a_variable_that_the_template_has_not_is_refused(tokenizer: Any) -> None:
    encoder = PromptEncoder("org/base", tokenizer, context_tokens=None)
    with pytest.raises(InvalidInputError, match="no variable 'enable_thinkin'; it has enable_thinking, style"):
        encoder.encode(GenerationRequest.ask("Why?", template_variables={"enable_thinkin": True}))
    with pytest.raises(InvalidInputError, match="plain text has no chat template"):
        encoder.encode(GenerationRequest.ask("Why?", template_variables={"style": "a"}), PromptFormat.for_text())


def test_a_name_that_the_template_has_not_is_refused_before_training(tokenizer: Any) -> None:
    options = RenderOptions(TemplateVariables.of({"thinking": True}))
    with pytest.raises(InvalidInputError, match="no variable 'thinking'; it has enable_thinking, style"):
        PromptFormat.for_rows(RowKind.CONVERSATION, tokenizer, options)
    with pytest.raises(InvalidInputError, match="plain text has no chat template"):
        PromptFormat.for_rows(RowKind.TEXT, tokenizer, options)


@pytest.mark.parametrize("values", [{}, {"enable_thinking": False}, VALUES, {"style": ""}, {"style": "\n"}])
@pytest.mark.parametrize("lead", ["", "\n", "\n\n  ", "  {% if true %}x{% endif %}\n"])
def test_other_programs_render_the_template_with_the_values_as_its_defaults(
    tokenizer: Any, values: dict[str, Any], lead: str
) -> None:
    own = PromptFormat(PromptKind.CHAT, lead + THINKING, RenderOptions(TemplateVariables.of(values)))
    bound = PromptFormat(PromptKind.CHAT, own.bound_template)
    for asks in (True, False):
        expected = own.render(tokenizer, MESSAGES, add_generation_prompt=asks)
        assert bound.render(tokenizer, MESSAGES, add_generation_prompt=asks) == expected
    other = {"enable_thinking": True, "style": "other"}
    assert bound.with_variables(other).prompt(tokenizer, MESSAGES) == own.with_variables(other).prompt(
        tokenizer, MESSAGES
    )


def test_lists_and_nothing_can_be_bound(tokenizer: Any) -> None:
    template = "{{ names | join(',') }} {{ limit is none }} {{ ratio + 1 }} {{ messages[0]['content'] }}"
    values = TemplateVariables.of({"names": ["a", "b", True], "limit": None, "ratio": 0.00001})
    own = PromptFormat(PromptKind.CHAT, template, RenderOptions(values))
    assert own.prompt(tokenizer, MESSAGES) == "a,b,True True 1.00001 Why?"
    assert PromptFormat(PromptKind.CHAT, own.bound_template).prompt(tokenizer, MESSAGES) == own.prompt(
        tokenizer, MESSAGES
    )


def test_the_strings_around_turns_have_the_values(tokenizer: Any) -> None:
    turns = turns_of(chat(tokenizer, enable_thinking=True, style="kind"), tokenizer)
    assert turns is not None
    assert (turns.user.before, turns.generation) == ("<|user kind|>", "<|assistant kind|>")


def test_special_tokens_in_values_stay_text(tokenizer: Any) -> None:
    eos = tokenizer.eos_token
    request = GenerationRequest.ask("Why?", template_variables={"style": eos})
    ids = PromptEncoder("org/base", tokenizer, context_tokens=None).encode(request).input_ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids).count(eos) == 3


def test_they_are_kept_with_the_adapter(tokenizer: Any) -> None:
    own = PromptFormat(PromptKind.CHAT, THINKING, RenderOptions(TemplateVariables.of(VALUES), "tokens"))
    assert PromptFormat.from_json(own.to_json()) == own
    assert json.loads(own.to_json())["chat_template_kwargs"] == VALUES


@pytest.mark.parametrize(
    ("content", "special_tokens"),
    [('{"kind": "text", "chat_template": null}', "tokens"), ('{"kind": "chat", "chat_template": "x"}', "tokens")],
)
def test_earlier_adapters_have_none_and_read_special_tokens(content: str, special_tokens: str) -> None:
    assert PromptFormat.from_json(content).options == RenderOptions(TemplateVariables(), special_tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ['"special_tokens": "both"', '"chat_template_kwargs": {"tools": []}'])
def test_what_nobody_has_written_is_no_prompt_format(fault: str) -> None:
    with pytest.raises(ArtifactError, match=r"prompt_format.json can't be read"):
        PromptFormat.from_json(f'{{"kind": "text", "chat_template": null, {fault}}}')


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "must be a JSON object"),
        ("enable_thinking", 'must be a JSON object of the template\'s variables, such as {"enable_thinking": false}'),
        ({"messages": []}, "can't set 'messages'"),
        ({"tools": []}, "can't set 'tools'"),
        ({"eos_token": ""}, "can't set 'eos_token'"),
        ({"additional_special_tokens": []}, "can't set 'additional_special_tokens'"),
        ({"a-b": 1}, "has the name 'a-b'"),
        ({"_x": 1}, "has the name '_x'"),
        ({"x": {}}, "has an object or a nested list for 'x'"),
        ({"x": [[]]}, "has an object or a nested list for 'x'"),
        ({"x": "y" * 2001}, "has 2001 characters for 'x', more than 2000"),
        ({"x": ["y" * 201]}, "has 201 characters for 'x', more than 200"),
        ({"x": [1] * 65}, "has a list of 65 items for 'x', more than 64"),
        ({"x": 10**7}, "has the number 10000000 for 'x'; give one between -1000000 and 1000000"),
        ({"x": float("nan")}, "has the number nan"),
        ({f"x{number}": 1 for number in range(MAX_VARIABLES + 1)}, "has 17 variables, more than 16"),
        ({f"x{number}": "y" * 2000 for number in range(9)}, "characters as JSON, more than 16384; shorten the values"),
    ],
)
def test_what_can_be_given_is_bounded(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        checked_values(values)


def test_no_argument_of_the_library_can_be_given(tokenizer: Any) -> None:
    arguments = set(inspect.signature(tokenizer.apply_chat_template).parameters) - {"kwargs"}
    assert arguments <= RESERVED_NAMES


def test_statistics_are_others_with_other_values() -> None:
    plain = StatisticsRequest("d", "owner/base", 512, RowKind.CONVERSATION, 2)
    others = (RenderOptions(TemplateVariables.of({"x": 1})), RenderOptions(special_tokens="tokens"))
    keys = {
        StatisticsRequest("d", "owner/base", 512, RowKind.CONVERSATION, 2, options=options).key
        for options in (RenderOptions(), *others)
    }
    assert plain.key in keys
    assert len(keys) == 3


def test_special_tokens_in_plain_text_are_text_unless_they_are_meant(tokenizer: Any) -> None:
    eos, end = tokenizer.eos_token, tokenizer.eos_token_id
    text = f"a{eos}b"
    for special_tokens, num_ends in (("text", 1), ("tokens", 2)):
        own = PromptFormat.for_text(RenderOptions.of({}, special_tokens))
        [row] = tokenize_row(tokenizer, own, messages=None, text=text, max_length=100)
        assert row.input_ids.count(end) == num_ends
        assert tokenizer.decode(row.input_ids) == f"{text}{eos}"
        asked = PromptEncoder("org/base", tokenizer, context_tokens=None).encode(GenerationRequest(text), own)
        assert row.input_ids[: len(asked.input_ids)] == asked.input_ids


@pytest.mark.parametrize("special_tokens", ["text", "tokens"])
@pytest.mark.parametrize("tail", ["{eos}", "{eos}\n", "{eos}\n\n ", "\n{eos}\n", "{eos}{eos}", "{eos}\n{eos}\n"])
def test_text_that_ends_in_the_end_mark_has_it_once(tokenizer: Any, special_tokens: str, tail: str) -> None:
    eos = tokenizer.eos_token
    own = PromptFormat.for_text(RenderOptions.of({}, special_tokens))
    text = "a" + tail.format(eos=eos)
    [row] = tokenize_row(tokenizer, own, messages=None, text=text, max_length=100)
    assert row.input_ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(row.input_ids).count(eos) == 1
    assert row.input_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("tail", ["{eos}", "{eos}\n", "{eos}\n\n ", "{eos}{eos}\n"])
def test_answers_that_end_in_the_end_mark_have_it_once(tokenizer: Any, tail: str) -> None:
    eos, end = tokenizer.eos_token, tokenizer.eos_token_id
    plain, marked = ([MESSAGES[0], {**MESSAGES[1], "content": f"So.{behind}"}] for behind in ("", tail.format(eos=eos)))
    own = chat(tokenizer)
    [expected], [row] = (
        tokenize_row(tokenizer, own, messages=messages, text=None, max_length=1000) for messages in (plain, marked)
    )
    assert row == expected
    assert row.input_ids.count(end) == 2
    pair, both = (
        tokenize_pair(tokenizer, own, messages=plain, rejected=messages[1], max_length=1000)
        for messages in (plain, marked)
    )
    assert both == pair
    # What is said before is read as it was learned.
    assert own.prompt(tokenizer, [*marked, MESSAGES[0]]) == own.prompt(tokenizer, [*plain, MESSAGES[0]])


def test_the_mark_behind_an_answer_may_be_another_one() -> None:
    tokenizer, other = byte_level(), "<|other|>"
    tokenizer.add_special_tokens({"additional_special_tokens": [other]})
    own = PromptFormat(PromptKind.CHAT, "{% for m in messages %}{{ m['content'] + '" + other + "' }}{% endfor %}")
    for content in ("So.", f"So.{other}", f"So.{other}\n"):
        [pieces] = own.examples(tokenizer, [MESSAGES[0], {**MESSAGES[1], "content": content}])
        assert [piece.text for piece in pieces if piece.is_completion] == [f"So.{other}{tokenizer.eos_token}"]


def test_an_end_mark_elsewhere_stays(tokenizer: Any) -> None:
    for content in (tokenizer.eos_token, f"a{tokenizer.eos_token}b", f" {tokenizer.eos_token}\n"):
        [row] = tokenize_row(
            tokenizer, chat(tokenizer), messages=[MESSAGES[0], {**MESSAGES[1], "content": content}], text=None,
            max_length=1000,
        )  # fmt: skip
        learned = tokenizer.decode([label for label in row.labels if label >= 0])
        assert learned == f"{content}{tokenizer.eos_token}"


def test_a_row_has_variables_of_its_own(tokenizer: Any) -> None:
    row = StoredRow([dict(each) for each in MESSAGES], None, chat_template_kwargs={"style": "own"})
    [pieces] = sides_of(tokenizer, chat(tokenizer, style="job's", enable_thinking=False), row)
    assert "".join(piece.text for piece in pieces).startswith("<|user own|>Why?")
    unknown = StoredRow([dict(each) for each in MESSAGES], None, chat_template_kwargs={"stile": "own"})
    with pytest.raises(InvalidInputError, match="no variable 'stile'"):
        sides_of(tokenizer, chat(tokenizer), unknown)


def test_a_published_tokenizer_asks_with_the_values(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_folder)
    own = PromptFormat(PromptKind.CHAT, THINKING, RenderOptions(TemplateVariables.of({"enable_thinking": False})))
    facts = base_model_facts(tiny_model_folder, tokenizer, own)
    for name, content in facts.files.items():
        (tmp_path / name).write_bytes(content)
    assert PromptFormat.from_json((tmp_path / "prompt_format.json").read_text()) == own
    published = load_tokenizer(tmp_path)
    for values in ({}, {"enable_thinking": True}, {"style": "own"}):
        text = published.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True, **values)
        assert text == own.with_variables(values).prompt(load_tokenizer(tiny_model_folder), MESSAGES[:1])
