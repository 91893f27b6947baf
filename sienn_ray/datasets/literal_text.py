"""Text of users in which special tokens stay text: `<|im_end|>` in a message ends no turn.

A chat template makes one string of its own marks and of what users write, and a tokenizer can't tell the two apart. So
before it is rendered, the string of each special token in a user's text is taken apart behind its first character, and
the parts are encoded by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

# Two of Unicode's noncharacters, which text has no use for; a text that has the first one keeps it, by the third.
_BREAK = "\ufdd0\ufdd1"
_FIRST, _KEPT = "\ufdd0", "\ufdd0\ufdd2"

_patterns: WeakKeyDictionary[Any, re.Pattern[str] | None] = WeakKeyDictionary()


def literal(tokenizer: Any, text: str) -> str:
    """Take the special tokens in a user's text apart.

    Args:
        tokenizer: The base model's.
        text: What a user wrote.
    """
    pattern = _pattern(tokenizer)
    kept = kept_as_is(text)
    return kept if pattern is None else pattern.sub(rf"\1{_BREAK}", kept)


def literal_values(tokenizer: Any, value: Any) -> Any:
    """Take the special tokens in all strings of a JSON value apart, those of keys as well."""
    if isinstance(value, str):
        return literal(tokenizer, value)
    if isinstance(value, Mapping):
        return {literal(tokenizer, key): literal_values(tokenizer, each) for key, each in value.items()}
    if isinstance(value, list):
        return [literal_values(tokenizer, each) for each in value]
    return value


def kept_as_is(text: str) -> str:
    """Return text whose special tokens stay as they are, in the form that `parts` reads."""
    return text.replace(_FIRST, _KEPT) if _FIRST in text else text


def parts(text: str) -> list[str]:
    """Return the parts of a text that are encoded by themselves; together they are the text as users wrote it."""
    if _FIRST not in text:
        return [text]
    return [part.replace(_KEPT, _FIRST) for part in text.split(_BREAK)]


def plain(text: str) -> str:
    """Return a text as users wrote it."""
    return "".join(parts(text))


def _pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """What finds the first character of each special token's string, also of those that overlap."""
    try:
        return _patterns[tokenizer]
    except KeyError:
        pass
    except TypeError:  # one that can't be remembered
        return _compiled(tokenizer)
    return _patterns.setdefault(tokenizer, _compiled(tokenizer))


def special_strings(tokenizer: Any) -> set[str]:
    """Return the strings of a tokenizer's special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {token.content for token in added if token.special} | set(getattr(tokenizer, "all_special_tokens", ()))


def _compiled(tokenizer: Any) -> re.Pattern[str] | None:
    found = "|".join(re.escape(each) for each in sorted(special_strings(tokenizer)) if len(each) > 1)
    return re.compile(f"(?={found})(.)", re.DOTALL) if found else None
