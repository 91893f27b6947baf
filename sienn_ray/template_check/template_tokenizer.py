"""A stand-in for a base model's tokenizer that renders as it does, and has no vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template

from sienn_ray.template_check.base_template import BaseTemplate
from sienn_ray.template_probe import environment

# Names that a message's reasoning may have; templates read the first one, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class AddedToken:
    """A special token as tokenizers list it."""

    content: str
    special: bool = True


class TemplateTokenizer:
    """Renders conversations with transformers' arguments; see `PreTrainedTokenizerBase.apply_chat_template`.

    Args:
        template: The base model's.
        base_model: Its hub id, for messages.
    """

    def __init__(self, template: BaseTemplate, base_model: str) -> None:
        self.chat_template = template.chat_template
        self.eos_token = template.named_tokens.get("eos_token")
        self.all_special_tokens = list(template.special_tokens)
        self.added_tokens_decoder = {
            number: AddedToken(content) for number, content in enumerate(template.special_tokens)
        }
        # As a folder of the hub's cache, which `chat_templates.name_of` reads.
        self.name_or_path = f"models--{base_model.replace('/', '--')}"
        self._named = template.named_tokens
        self._environment = environment()
        self._compiled: dict[str, Template] = {}

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        **variables: Any,
    ) -> str:
        """Render a conversation."""
        text = chat_template or self.chat_template
        if tokenize or not text or not conversation:
            raise ValueError("only a conversation can be rendered, by a template")
        messages = [_with_reasoning({k: v for k, v in each.items() if v is not None}) for each in conversation]
        if text not in self._compiled:
            self._compiled[text] = self._environment.from_string(text)
        return self._compiled[text].render(
            messages=messages,
            tools=None if tools is None else list(tools),
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **{**self._named, **variables},
        )


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    found = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}
