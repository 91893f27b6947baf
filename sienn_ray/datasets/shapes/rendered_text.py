"""Marks of chat templates, by which text that was rendered already is told from other text."""

from __future__ import annotations

import re

_HEAD_CHARS = 400  # a rendered text begins with a mark
# The marks around turns in the templates of ChatML, Llama 2 to 4, Gemma, Phi, DeepSeek, Mistral and Zephyr.
_MARK = re.compile(
    r"<\|(?:im_start|start_header_id|header_start|user|assistant|system|start|START_OF_TURN_TOKEN|start_of_role)\|>"
    r"|<start_of_turn>|\[INST\]|<\uff5c(?:User|Assistant)\uff5c>|<\|turn>"
)


def chat_mark(text: str) -> str | None:
    """Return the first mark of a chat template in a text; None where there is none."""
    head = text[:_HEAD_CHARS]
    found = _MARK.search(head) if "<" in head or "[INST]" in head else None
    return found.group() if found else None
