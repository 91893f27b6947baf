"""Renders a chat template for a few conversations, in a process that may be killed; run as a program, by its path.

It reads `{"template": ..., "tokens": ...}` from its standard input. A template may refuse a conversation; for one that
takes too much, it exits with `TOO_MUCH`, or is ended by the limit of its CPU time.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

TOO_MUCH = 3
MAX_CPU_S = 10
MAX_MEMORY_BYTES = 1024**3
# What a template adds to a conversation is a few kilobytes.
_MAX_ADDED_CHARS = 1_000_000
_LONG_CHARS = 2_000
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    },
}


def main() -> int:
    """Render all conversations within the limits."""
    _limit()
    asked = json.load(sys.stdin)
    try:
        template = environment().from_string(asked["template"])
    except MemoryError:
        return TOO_MUCH
    except Exception:
        return 0
    for messages, tools in [*((each, None) for each in _conversations()), (_calls(), [_TOOL])]:
        for asks in (True, False):
            try:
                text = template.render(messages=messages, tools=tools, add_generation_prompt=asks, **asked["tokens"])
            except (MemoryError, OverflowError):
                return TOO_MUCH
            except Exception:  # nosec B112 # who renders it in earnest says why
                continue
            if len(text) > _MAX_ADDED_CHARS + sum(len(message["content"]) for message in messages):
                return TOO_MUCH
    return 0


def _calls() -> list[dict[str, Any]]:
    """A conversation of which a template may do what it does for no other: with tools, their calls and reasoning."""
    call = {"id": "probe0001", "type": "function", "function": {"name": "probe", "arguments": {"key": "value"}}}
    answer = {"role": "assistant", "reasoning_content": "Well.", "thinking": "Well."}
    return [
        {"role": "user", "content": "Hello"},
        {**answer, "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "probe0001", "name": "probe", "content": "{}"},
        {**answer, "content": "Hello"},
    ]


def _limit() -> None:
    try:
        import resource
    except ImportError:  # there is none on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def environment() -> Any:
    """An environment as transformers makes it for chat templates."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """Reads the block that some templates have around what is learned, as if it weren't there."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationBlock]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _conversations() -> list[list[dict[str, str]]]:
    """Conversations of one and of many turns, short and long, with and without a system message."""
    contents = ["Hello", "x" * _LONG_CHARS, "a\nb <b> {{ c }} \u00fc\u4f60"]
    found = []
    for num_turns in (1, 2, 3, 9):
        turns = [
            {"role": ("user", "assistant")[number % 2], "content": contents[number % len(contents)]}
            for number in range(num_turns)
        ]
        found += [turns, [{"role": "system", "content": "Be brief."}, *turns]]
    return found


if __name__ == "__main__":
    sys.exit(main())
