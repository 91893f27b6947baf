"""Messages of the assistant as clients send them back: reasoning and refusals under names of other servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names of a message's reasoning, beside `reasoning_content`.
_REASONING = ("reasoning", "thinking")
# Parts of a content that are reasoning, and where they have it; that of the last kind is encrypted, and says nothing.
_REASONING_PARTS = {"thinking": ("thinking", "text"), "reasoning": ("reasoning", "text"), "redacted_thinking": ()}


def read_back(message: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a message's reasoning and refusal under the names that they have here; what isn't known stays.

    Args:
        message: A message as it was sent, whatever its fields have.
    """
    said = dict(message)
    weight = said.get("weight")
    if isinstance(weight, int | float) and weight in (0, 1):  # it is for training
        del said["weight"]
    thoughts: list[str] = []
    for name in _REASONING:
        if name in said and (said[name] is None or isinstance(said[name], str)):
            thoughts.append(said.pop(name) or "")
    if said.get("role") == "assistant":
        thoughts += _out_of_content(said)
        _with_refusal(said)
    own = said.get("reasoning_content")
    if any(thoughts) and (own is None or isinstance(own, str)):
        # Some servers give the same reasoning under two names.
        said["reasoning_content"] = "\n".join(dict.fromkeys(filter(None, [own, *thoughts])))
    return said


def _out_of_content(said: dict[str, Any]) -> list[str]:
    """Take parts of reasoning out of a content, and make text of refusals in it; returns the reasoning."""
    content = said.get("content")
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list):
        return []
    thoughts, rest = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(kind, str) and kind in _REASONING_PARTS:
            found = (part.get(name) for name in _REASONING_PARTS[kind])
            thoughts.append(next((each for each in found if isinstance(each, str)), ""))
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            rest.append({"type": "text", "text": part["refusal"]})
        else:
            rest.append(part)
    said["content"] = rest
    return thoughts


def _with_refusal(said: dict[str, Any]) -> None:
    """Put a refusal, which is what the assistant said, behind the content that it has."""
    refusal = said.get("refusal")
    if not isinstance(refusal, str):
        return
    del said["refusal"]
    content = said.get("content")
    if refusal and content != refusal:
        before = content if isinstance(content, list) else [content] if content else []
        said["content"] = [*before, refusal] if before else refusal
