"""Options of how rows become text that a job may choose: variables of the chat template, and special tokens in text.

Chat templates have variables beside messages and tools, such as `enable_thinking` and `reasoning_effort`. A job trains
with one set of values, its adapter keeps them, and a request may override them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from sienn_ray.chat_templates import variables_of
from sienn_ray.errors import InvalidInputError

MAX_VARIABLES = 16
MAX_VALUE_CHARS = 2_000
MAX_LIST_ITEMS = 64
MAX_LIST_ITEM_CHARS = 200
# A number may be how often a template repeats something.
MAX_NUMBER = 1_000_000
MAX_JSON_CHARS = 16_384
NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_]{0,63}$"
# Names that `apply_chat_template` and templates have for something else.
RESERVED_NAMES = frozenset(
    {
        "add_generation_prompt", "caller", "chat_template", "continue_final_message", "conversation", "cycler", "dict",
        "documents", "joiner", "kwargs", "lipsum", "loop", "max_length", "messages", "namespace", "padding",
        "raise_exception", "range", "return_assistant_tokens_mask", "return_dict", "return_tensors",
        "sanitize_control_tokens", "self", "strftime_now", "tokenize", "tokenizer_kwargs", "tools", "truncation",
        "varargs",
    }
)  # fmt: skip
# Special tokens are the tokenizer's.
_OF_TOKENIZER = re.compile("_tokens?$")
_NAME = re.compile(NAME_PATTERN.removeprefix("^").removesuffix("$"))
_EXAMPLE = '{"enable_thinking": false}'

SpecialTokens = Literal["text", "tokens"]


def checked_values(values: Any) -> dict[str, Any]:
    """Return values of a template's variables if they are what may be given to one.

    Raises:
        ValueError: They aren't; the message names the first fault.
    """
    if not isinstance(values, dict):
        raise ValueError(f"must be a JSON object of the template's variables, such as {_EXAMPLE}")  # noqa: TRY004
    if len(values) > MAX_VARIABLES:
        raise ValueError(f"has {len(values)} variables, more than {MAX_VARIABLES}")
    for name, value in values.items():
        _check_name(name)
        _check_value(name, value)
    size = len(json.dumps(values, ensure_ascii=False))
    if size > MAX_JSON_CHARS:
        raise ValueError(f"has {size} characters as JSON, more than {MAX_JSON_CHARS}; shorten the values")
    return values


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"has the name {str(name)[:64]!r}; a variable's name is a letter, then up to 63 letters, digits and '_'"
        )
    if name in RESERVED_NAMES or _OF_TOKENIZER.search(name):
        raise ValueError(
            f"can't set '{name}': the service itself gives messages, tools, the generation prompt and special tokens "
            "to the template; leave it out"
        )


def _check_value(name: str, value: Any) -> None:
    if not isinstance(value, list):
        return _check_scalar(name, value, MAX_VALUE_CHARS)
    if len(value) > MAX_LIST_ITEMS:
        raise ValueError(f"has a list of {len(value)} items for '{name}', more than {MAX_LIST_ITEMS}")
    for item in value:
        _check_scalar(name, item, MAX_LIST_ITEM_CHARS)


def _check_scalar(name: str, value: Any, max_chars: int) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if len(value) > max_chars:
            raise ValueError(f"has {len(value)} characters for '{name}', more than {max_chars}")
        return
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            raise ValueError(f"has the number {value} for '{name}'; give one between -{MAX_NUMBER} and {MAX_NUMBER}")
        return
    raise ValueError(f"has an object or a nested list for '{name}'; give a string, a number, true, false or a list")


@dataclass(frozen=True)
class TemplateVariables:
    """Values of a chat template's variables.

    Args:
        json: They as a JSON object with its names sorted, so that equal ones are equal.
    """

    json: str = "{}"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TemplateVariables:
        """Build from values by name.

        Raises:
            InvalidInputError: They aren't what may be given to a template.
        """
        try:
            checked = checked_values(dict(values))
        except ValueError as error:
            raise InvalidInputError(f"chat_template_kwargs {error}") from None
        return cls(json.dumps(checked, ensure_ascii=False, sort_keys=True))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values by name."""
        values: dict[str, Any] = json.loads(self.json)
        return values

    def merged(self, values: Mapping[str, Any]) -> TemplateVariables:
        """Return these with others over them."""
        return TemplateVariables.of({**self.values, **values}) if values else self

    def check_known(self, chat_template: str | None, whose: str = "the base model") -> None:
        """Refuse names that a template doesn't read: a misspelt one would change nothing, in silence.

        Args:
            chat_template: The template; None is plain text, which has no variables.
            whose: The base model, in words.

        Raises:
            InvalidInputError: The template has no variable of a name.
        """
        if not self.values:
            return
        if chat_template is None:
            raise InvalidInputError(
                "chat_template_kwargs are for conversations, and plain text has no chat template; leave them out"
            )
        known = variables_of(chat_template)
        if known is None:  # what doesn't compile is refused when it is rendered
            return
        unknown = sorted(self.values.keys() - known)
        if unknown:
            own = sorted(name for name in known if name not in RESERVED_NAMES and not _OF_TOKENIZER.search(name))
            has = f"it has {', '.join(own)}" if own else "it has none"
            raise InvalidInputError(
                f"chat_template_kwargs: the chat template of {whose} has no variable "
                f"{' or '.join(repr(name) for name in unknown)}; {has}"
            )

    def bound_to(self, chat_template: str) -> str:
        """Return a template that has these values wherever it is given no others, for other programs to render.

        The line break is no part of the text: whatever renders chat templates trims the one behind a block.
        """
        lines = [
            f"{{% set {name} = {name} if {name} is defined else {_literal(value)} %}}\n"
            for name, value in self.values.items()
        ]
        return "".join([*lines, chat_template])


@dataclass(frozen=True)
class RenderOptions:
    """Options of how rows become text.

    Args:
        variables: Values of the chat template's variables.
        special_tokens: How the strings of special tokens in rows of plain text are encoded: as the text that they are,
            or as tokens, for rows that were rendered already. In messages they are always text.
    """

    variables: TemplateVariables = field(default_factory=TemplateVariables)
    special_tokens: SpecialTokens = "text"

    @classmethod
    def of(cls, variables: Mapping[str, Any], special_tokens: str) -> RenderOptions:
        """Build from what JSON has.

        Raises:
            InvalidInputError: A value isn't one of these.
        """
        if special_tokens not in get_args(SpecialTokens):
            raise InvalidInputError(
                f"special_tokens is {special_tokens!r}, and not {' or '.join(get_args(SpecialTokens))}"
            )
        return cls(TemplateVariables.of(variables), "tokens" if special_tokens == "tokens" else "text")


def _literal(value: Any) -> str:
    """Write a value in Jinja's syntax."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    # Jinja reads escapes one by one, so pairs of surrogates would stay apart.
    return json.dumps(value, ensure_ascii=False)
