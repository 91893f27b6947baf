"""Estimates of tokens; the ingress has no tokenizer."""

from __future__ import annotations

import json

from sienn_ray.inference.engine import ChatMessage, GenerationRequest

# Of English text, one token is about as much; hosted APIs estimate by the same rule.
_BYTES_PER_TOKEN = 4
# What a chat template puts around a message.
_TOKENS_PER_MESSAGE = 4


def tokens_of_bytes(num_bytes: int) -> int:
    """Return about how many tokens a text of so many bytes has."""
    return -(-num_bytes // _BYTES_PER_TOKEN)


def prompt_tokens(prompt: tuple[ChatMessage, ...] | str) -> int:
    """Return about how many tokens a prompt has.

    Example:
        >>> prompt_tokens((ChatMessage("user", "What is LoRA?"),))
        8
    """
    if isinstance(prompt, str):
        return tokens_of_bytes(len(prompt.encode(errors="replace")))
    return sum(_message_tokens(message) + _TOKENS_PER_MESSAGE for message in prompt)


def _message_tokens(message: ChatMessage) -> int:
    texts = [message.content, message.reasoning_content or ""]
    texts += [text for call in message.tool_calls for text in (call.name, call.arguments)]
    return sum(map(prompt_tokens, texts))


def tokens_reserved(request: GenerationRequest) -> int:
    """Return about how many tokens an answer takes at the most, its prompt included."""
    tools = prompt_tokens(json.dumps([dict(tool) for tool in request.tools])) if request.tools else 0
    return prompt_tokens(request.prompt) + tools + request.sampling.max_new_tokens
