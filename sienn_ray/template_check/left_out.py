"""Messages that a chat template leaves out of what the model reads, without refusing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# A template that leaves out the reasoning of earlier turns cuts an answer here.
_END_OF_REASONING = "</think>"
_ROLES = frozenset({"system", "developer", "user", "assistant"})


def left_out(messages: Sequence[Mapping[str, Any]], text: str) -> list[int]:
    """Return the places of messages whose text isn't in a rendered conversation, blanks aside.

    Args:
        messages: The conversation.
        text: All that is rendered of it.
    """
    rendered = _without_blanks(text)
    return [
        place
        for place, message in enumerate(messages)
        if message["role"] in _ROLES and not _is_in(message.get("content") or "", rendered)
    ]


def _is_in(content: str, rendered: str) -> bool:
    said = _without_blanks(content)
    return said in rendered or said.rpartition(_END_OF_REASONING)[2] in rendered


def _without_blanks(text: str) -> str:
    return "".join(text.split())
