"""Trials of chat templates: which of several forms they read is seen in the text that they make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sienn_ray.chat_templates import limited_rendering
from sienn_ray.time_limit import TimeLimitError

_Found = TypeVar("_Found")
_known: WeakKeyDictionary[Any, dict[tuple[object, str | None], Any]] = WeakKeyDictionary()


def found_once(find: Callable[[Any, str | None], _Found], tokenizer: Any, chat_template: str | None) -> _Found:
    """Call a function that tries a template once for each template of a tokenizer.

    Raises:
        InvalidBaseModelError: The template takes too long.
    """
    try:
        known = _known.setdefault(tokenizer, {})
    except TypeError:  # one that can't be remembered
        known = {}
    key = (find, chat_template)
    if key not in known:
        with limited_rendering(tokenizer):
            known[key] = find(tokenizer, chat_template)
    found: _Found = known[key]
    return found


def tried(
    tokenizer: Any,
    chat_template: str | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
) -> str | None:
    """Return the rendered text; None where the template refuses it."""
    try:
        return rendered(tokenizer, chat_template, messages, tools=tools, add_generation_prompt=add_generation_prompt)
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
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Render a conversation with a tokenizer's special tokens.

    Args:
        tokenizer: The base model's.
        chat_template: The template.
        messages: The conversation in the template's form.
        add_generation_prompt: Whether to ask for an answer behind it.
        tools: Tools in OpenAI's form.
        variables: Further variables of the template.
    """
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tools=None if tools is None else list(tools),
        chat_template=chat_template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        **(variables or {}),
    )
    return str(text)
