"""Marks that end a text or an answer, which many files have written out at its end: they aren't learned twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sienn_ray.datasets.content_form import TURNS, form_of
from sienn_ray.datasets.template_probes import found_once, tried


def without_end(text: str, marks: Sequence[str]) -> str:
    """Return a text without the end marks that it ends with, since the one that is learned comes behind it anyway.

    Args:
        text: What a user wrote.
        marks: The marks.
    """
    if not any(mark in text for mark in marks):
        return text
    rest, is_cut = text.rstrip(), False
    while mark := next((each for each in marks if rest.endswith(each)), None):
        rest, is_cut = rest.removesuffix(mark).rstrip("\n"), True
    return rest if is_cut else text


def text_ends(tokenizer: Any) -> tuple[str, ...]:
    """Return the mark that ends plain text, if the tokenizer has one."""
    return (tokenizer.eos_token,) if tokenizer.eos_token else ()


def without_end_marks(
    tokenizer: Any, chat_template: str | None, messages: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return messages whose answers don't end with the marks that the template writes behind them."""
    marks = found_once(_answer_ends, tokenizer, chat_template)
    return [_without_end_marks(message, marks) if message["role"] == "assistant" else message for message in messages]


def _without_end_marks(message: Mapping[str, Any], marks: Sequence[str]) -> Mapping[str, Any]:
    said = message.get("content") or ""
    rest = without_end(said, marks)
    # An answer that is nothing but marks is one about them.
    return {**message, "content": rest} if rest != said and rest.strip() else message


def _answer_ends(tokenizer: Any, chat_template: str | None) -> tuple[str, ...]:
    """The end of sequence, and the special token that a template writes behind an answer."""
    text = tried(tokenizer, chat_template, form_of(tokenizer, chat_template).of(TURNS)) or ""
    _, is_there, behind = text.rpartition(TURNS[-1]["content"])
    behind = behind.strip()
    tokens = getattr(tokenizer, "all_special_tokens", ())
    special = (token for token in tokens if token and behind.startswith(token))
    own = max(special, key=len, default=None)
    return tuple(dict.fromkeys([*text_ends(tokenizer), *([own] if own and is_there else [])]))
