"""Chat templates of current models are rendered without a tokenizer as with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.render_options import RenderOptions, TemplateVariables
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.template_check.base_template import folder_template
from sienn_ray.template_check.template_tokenizer import TemplateTokenizer
from tests.support.current_templates import TEMPLATES, format_of
from tests.support.tiny_model import TINY_ID
from tests.unit.datasets.test_current_templates import conversation

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look <there>.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "Where."}}},
    },
}


@pytest.fixture(scope="module")
def tokenizers(tiny_model_folder: Path) -> tuple[Any, TemplateTokenizer]:
    template = folder_template(tiny_model_folder)
    assert template is not None
    return load_tokenizer(tiny_model_folder), TemplateTokenizer(template, TINY_ID)


def rendered(chat: PromptFormat, tokenizer: Any, messages: Any, tools: Any) -> Any:
    try:
        return chat.examples(tokenizer, messages, tools=tools)
    except InvalidDatasetError as error:
        return error.message


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_rows_are_rendered_alike(tokenizers: tuple[Any, TemplateTokenizer], path: Path) -> None:
    real, light = tokenizers
    options = RenderOptions(TemplateVariables.of({"enable_thinking": False}))
    reasoned = [*conversation(2)[:-1], {**conversation(2)[-1], "reasoning_content": "Hm."}]
    for messages, tools in (
        (conversation(1), None), (conversation(3, "Be brief."), None), (reasoned, None), (conversation(1), [TOOL]),
    ):  # fmt: skip
        for chat in (format_of(path), PromptFormat(format_of(path).kind, format_of(path).chat_template, options)):
            assert rendered(chat, light, messages, tools) == rendered(chat, real, messages, tools)
