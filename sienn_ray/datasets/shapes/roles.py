"""Words for the speaker of a turn, and the role that each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Of ShareGPT and the sets that followed it, of LLaMA-Factory, ms-swift, OpenAssistant, and models' own names.
ROLE_OF: Mapping[str, str] = MappingProxyType(
    {
        "system": "system",
        "developer": "developer",
        **dict.fromkeys(("user", "human", "prompter"), "user"),
        **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model", "ai"), "assistant"),
        **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
    }
)
# Turns of the assistant whose text is the JSON of its calls of tools.
CALLS = frozenset({"function_call", "tool_call"})
