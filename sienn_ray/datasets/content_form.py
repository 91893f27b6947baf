"""The form in which a chat template takes messages, found by trying it.

Templates of vision models take contents as lists of parts, and leave strings out. Some refuse a system message, or
leave it out; there it goes before the first user's, in training as in serving. A developer's message is a system
message where the template doesn't speak of developers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.template_probes import found_once, tried

_SYSTEM, _QUESTION, _ANSWER = "Be a probe.", "What is a probe?", "An instrument that looks."
TURNS = ({"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER})


@dataclass(frozen=True)
class MessageForm:
    """The form in which a template takes messages.

    Args:
        has_parts: Contents are lists of parts.
        joins_system: A system message becomes the beginning of the user's message behind it.
        knows_developers: A developer's message is none of the system.
        leaves_out: It leaves out what messages say, in whatever form, so nothing can be learned by it.
    """

    has_parts: bool = False
    joins_system: bool = False
    knows_developers: bool = False
    leaves_out: bool = False

    def of(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Bring messages into this form."""
        formed = [dict(message) for message in messages]
        if not self.knows_developers:
            formed = [
                {**message, "role": "system"} if message["role"] == "developer" else message for message in formed
            ]
        if self.joins_system and [message["role"] for message in formed[:2]] == ["system", "user"]:
            system, first, *others = formed
            formed = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]
        if self.has_parts:
            return [{**message, "content": _parts(message["content"])} for message in formed]
        return formed


def form_of(tokenizer: Any, chat_template: str | None) -> MessageForm:
    """Return the form of a template, which is tried once."""
    return found_once(_find, tokenizer, chat_template)


def _parts(content: str | None) -> list[dict[str, str]] | None:
    return None if content is None else [{"type": "text", "text": content}] if content else []


def _find(tokenizer: Any, chat_template: str | None) -> MessageForm:
    has_refused = False
    for has_parts in (False, True):
        text = tried(tokenizer, chat_template, MessageForm(has_parts).of(TURNS))
        has_refused = has_refused or text is None
        if text and _QUESTION in text and _ANSWER in text:
            break
    else:
        if has_refused:
            return MessageForm()  # what it refuses is told of each conversation
        return MessageForm(leaves_out=True)

    def reads(role: str) -> bool:
        messages = MessageForm(has_parts, knows_developers=True).of([{"role": role, "content": _SYSTEM}, *TURNS])
        text = tried(tokenizer, chat_template, messages)
        return text is not None and _SYSTEM in text

    # Many write any role's name out, which a model that never saw it doesn't know.
    speaks_of_developers = "developer" in (chat_template or "")
    return MessageForm(
        has_parts, joins_system=not reads("system"), knows_developers=speaks_of_developers and reads("developer")
    )
