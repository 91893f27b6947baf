from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
import pytest

from sienn_ray.datasets.chat_turns import Turn, Turns, find_turns
from sienn_ray.datasets.prompt import PLAIN_TEMPLATE
from sienn_ray.errors import ExportError
from tests.support.chat_templates import CONVERSATIONS, TEMPLATES


def renderer(template: str) -> Callable[[Any, bool], str]:
    compiled = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    return lambda messages, asks: compiled.render(
        messages=messages, add_generation_prompt=asks, eos_token="</s>", bos_token="<s>"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_render_as_the_template_does(name: str) -> None:
    render = renderer(TEMPLATES[name])
    turns = find_turns(render)
    for messages in CONVERSATIONS:
        for asks in (True, False):
            assert turns.render(messages, asks) == render(messages, asks)


def test_strings_of_a_plain_template() -> None:
    assert find_turns(renderer(PLAIN_TEMPLATE)) == Turns(
        start="",
        system_start="",
        system_end="\n\n",
        user=Turn("### Instruction:\n", "\n\n"),
        assistant=Turn("### Response:\n", "</s>\n\n"),
        generation="### Response:\n",
    )


def test_system_message_that_a_template_brings_along() -> None:
    assert find_turns(renderer(TEMPLATES["ChatML with a default system"])).default_system == "You are helpful."
    assert find_turns(renderer(TEMPLATES["ChatML"])).default_system is None
    assert find_turns(renderer(PLAIN_TEMPLATE)).default_system is None


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",
        "{% for m in messages[-1:] %}{{ m.content }}{% endfor %}",
        "{{ raise_exception('no') }}",
    ],
    ids=["changes contents", "counts", "drops turns", "fails"],
)
def test_template_that_does_more_is_refused(template: str) -> None:
    with pytest.raises(ExportError, match="chat template"):
        find_turns(renderer(template))
