"""The form in which a chat template takes messages, found by trying it.

Templates of vision models take contents as lists of parts, and leave strings out. Some refuse a system message, or
leave it out; there it goes before the first user's, in training as in serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sienn_ray.time_limit import TimeLimitError

_SYSTEM, _QUESTION, _ANSWER = "Be a probe.", "What is a probe?", "An instrument that looks."
_TURNS = ({"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER})


@dataclass(frozen=True)
class MessageForm:
    """The form in which a template takes messages.

    Args:
        has_parts: Contents are lists of parts.
        joins_system: A system message becomes the beginning of the user's message behind it.
        leaves_out: It leaves out what messages say, in whatever form, so nothing can be learned by it.
    """

    has_parts: bool = False
    joins_system: bool = False
    leaves_out: bool = False

    def of(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Bring messages into this form."""
        formed = [dict(message) for message in messages]
        if self.joins_system and [message["role"] for message in formed[:2]] == ["system", "user"]:
            system, first, *others = formed
            formed = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]
        if self.has_parts:
            return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in formed]
        return list(formed)


_forms: WeakKeyDictionary[Any, dict[str | None, MessageForm]] = WeakKeyDictionary()


def form_of(tokenizer: Any, chat_template: str | None) -> MessageForm:
    """Return the form of a template, which is tried once."""
    try:
        known = _forms.setdefault(tokenizer, {})
    except TypeError:  # one that can't be remembered
        return _find(tokenizer, chat_template)
    if chat_template not in known:
        known[chat_template] = _find(tokenizer, chat_template)
    return known[chat_template]


def _find(tokenizer: Any, chat_template: str | None) -> MessageForm:
    has_refused = False
    for has_parts in (False, True):
        text = _tried(tokenizer, chat_template, _TURNS, MessageForm(has_parts))
        has_refused = has_refused or text is None
        if text and _QUESTION in text and _ANSWER in text:
            break
    else:
        if has_refused:
            return MessageForm()  # what it refuses is told of each conversation
        return MessageForm(leaves_out=True)
    with_system = _tried(
        tokenizer, chat_template, ({"role": "system", "content": _SYSTEM}, *_TURNS), MessageForm(has_parts)
    )
    return MessageForm(has_parts, joins_system=with_system is None or _SYSTEM not in with_system)


def _tried(
    tokenizer: Any, chat_template: str | None, messages: Sequence[Mapping[str, str]], form: MessageForm
) -> str | None:
    """The rendered text; None where the template refuses it."""
    try:
        return rendered(tokenizer, chat_template, form.of(messages), add_generation_prompt=False)
    except TimeLimitError:
        raise
    except Exception:  # a template of strings does what it likes with lists
        return None


def rendered(
    tokenizer: Any,
    chat_template: str | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Render a conversation with a tokenizer's special tokens.

    Args:
        tokenizer: The base model's.
        chat_template: The template.
        messages: The conversation in the template's form.
        add_generation_prompt: Whether to ask for an answer behind it.
        variables: Values of the template's variables.
    """
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        chat_template=chat_template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        **(variables or {}),
    )
    return str(text)
