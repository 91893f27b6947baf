"""Chat templates that never end, or take all memory, end in an error that names model and limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from sienn_ray import chat_templates, template_probe
from sienn_ray.base_model import load_tokenizer
from sienn_ray.chat_templates import check_chat_template, limited_rendering
from sienn_ray.datasets.chat_turns import turns_of
from sienn_ray.datasets.prompt import PLAIN_TEMPLATE, PromptFormat, PromptKind
from sienn_ray.errors import ExportError, InvalidBaseModelError
from tests.support import chat_templates as known_templates

LOOP = "".join(f"{{% for {name} in range(9999) %}}" for name in "abc") + "{% endfor %}" * 3
LATE_LOOP = "{% if 'loop' in messages[0].content %}" + LOOP + "{% endif %}{{ messages[0].content }}"
FOLDER = "/cache/hub/models--owner--model/snapshots/" + "a" * 40


@dataclass
class Tokenizer:
    """What of a tokenizer rendering needs."""

    chat_template: Any
    name_or_path: str = FOLDER
    eos_token: str = "</s>"

    def apply_chat_template(self, messages: Any, *, chat_template: str, add_generation_prompt: bool, **_: Any) -> str:
        rendered, _positions = render_jinja_template(
            [messages], chat_template=chat_template, add_generation_prompt=add_generation_prompt
        )
        return str(rendered[0])


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_templates, "MAX_CPU_S", 0.2)


@pytest.mark.parametrize("is_named", [False, True])
def test_templates_that_are_used_pass(is_named: bool) -> None:
    for template in [PLAIN_TEMPLATE, *known_templates.TEMPLATES.values()]:
        check_chat_template(Tokenizer({"default": template} if is_named else template))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 'a' * (messages[0].content|length * 10**9) }}",
        "{{ 'a' * 5000000 }}",
        # For rows of tools and reasoning alone.
        "{% if tools %}{{ 'a' * 10**10 }}{% endif %}",
        "{% for message in messages %}{{ 'a' * (message.tool_calls|default([])|length * 10**10) }}{% endfor %}",
        "{% for message in messages %}{{ message.reasoning_content|default('') * 10**9 }}{% endfor %}",
    ],
)
def test_a_template_that_takes_all_memory_is_refused(template: str) -> None:
    with pytest.raises(InvalidBaseModelError, match="chat template of base model 'owner/model' takes more than"):
        check_chat_template(Tokenizer(template))


def test_a_template_that_loops_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = tmp_path / "probe.py"
    quick.write_text(Path(template_probe.__file__).read_text().replace("MAX_CPU_S = 10", "MAX_CPU_S = 1"))
    monkeypatch.setattr(template_probe, "__file__", str(quick))
    with pytest.raises(InvalidBaseModelError, match=r"'owner/model' takes more than .* choose another base model"):
        check_chat_template(Tokenizer(LOOP))


def test_a_template_that_refuses_a_conversation_passes() -> None:
    check_chat_template(Tokenizer("{{ raise_exception('no system message') }}"))
    check_chat_template(Tokenizer("{% if"))
    check_chat_template(Tokenizer(None))


def test_a_tokenizer_with_such_a_template_is_not_loaded(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    tokenizer.chat_template = "{{ 'a' * 10**10 }}"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InvalidBaseModelError, match="isn't rendered"):
        load_tokenizer(tmp_path)


def test_a_rendering_that_loops_for_one_conversation_is_ended() -> None:
    chat, tokenizer = PromptFormat(PromptKind.CHAT, LATE_LOOP), Tokenizer(LATE_LOOP)
    assert chat.prompt(tokenizer, [{"role": "user", "content": "Hello"}]) == "Hello"
    with pytest.raises(InvalidBaseModelError, match=r"of base model 'owner/model' took more than 0\.2 s for one"):
        chat.prompt(tokenizer, [{"role": "user", "content": "loop"}])
    # The thread goes on as if nothing had been.
    assert chat.prompt(tokenizer, [{"role": "user", "content": "Hello"}]) == "Hello"


def test_an_export_s_look_at_a_template_ends() -> None:
    with pytest.raises(ExportError, match=r"took more than 0\.2 s"):
        turns_of(PromptFormat(PromptKind.CHAT, LOOP), Tokenizer(LOOP))


def test_an_interruption_that_is_swallowed_comes_again() -> None:
    def run() -> None:
        with limited_rendering(Tokenizer(None)):
            for _ in range(2):
                try:
                    while True:
                        pass
                except Exception:
                    pass
            while True:
                pass

    with pytest.raises(InvalidBaseModelError):
        run()
