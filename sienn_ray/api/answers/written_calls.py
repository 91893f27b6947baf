"""Calls of tools as models write them: Hermes' and Qwen's JSON within tags, Qwen's XML, and a bare JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from sienn_ray.inference.engine import ToolCall

START, END = "<tool_call>", "</tool_call>"
_FUNCTION, _END_OF_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_OF_PARAMETER = "<parameter=", "</parameter>"
# The words that models have for the arguments; those of Llama are parameters.
_ARGUMENTS = ("arguments", "parameters")
_OF_A_CALL = frozenset({"name", "id", "type", *_ARGUMENTS})
# In front of calls, for tokenizers that have it as text.
_LIST_MARK = "[TOOL_CALLS]"

Tools = Sequence[Mapping[str, Any]]


def tagged_call(text: str, tools: Tools) -> ToolCall | None:
    """The call that stands between the tags; None where it is broken.

    Args:
        text: What stands between them.
        tools: The tools that may be called, in OpenAI's form.

    Example:
        >>> tagged_call('{"name": "hours", "arguments": {"day": "Monday"}}', [])
        ToolCall(name='hours', arguments='{"day": "Monday"}', id=None)
    """
    written = text.strip()
    if written.startswith(_FUNCTION):
        name, closed, body = written.removeprefix(_FUNCTION).partition(">")
        return _xml_call(name.strip(), body.removesuffix(_END_OF_FUNCTION), tools) if closed else None
    return _call_of(_parsed(text))


def bare_calls(text: str, tools: Tools) -> list[ToolCall]:
    """The calls that are all of an answer; none where it isn't beyond doubt that it is calls of these tools."""
    value = _parsed(text.strip().removeprefix(_LIST_MARK))
    several = value if isinstance(value, list) else [value]
    names = {tool["function"]["name"] for tool in tools}
    calls = [_call_of(each) for each in several if _is_nothing_but_a_call(each)]
    found = [call for call in calls if call is not None and call.name in names]
    return found if len(found) == len(several) else []


def may_be_bare(text: str) -> bool:
    """Return whether an answer that begins so may be nothing but calls."""
    begun = text.lstrip()
    return begun[:1] == "{" or begun[:1] == "["


def _is_nothing_but_a_call(value: object) -> bool:
    return isinstance(value, dict) and value.keys() <= _OF_A_CALL and any(name in value for name in _ARGUMENTS)


def _call_of(value: object) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    name = value.get("name")
    arguments: Any = next((value[each] for each in _ARGUMENTS if each in value), {})
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if not isinstance(name, str) or not name.strip() or not isinstance(arguments, dict):
        return None
    return ToolCall(name.strip(), json.dumps(arguments, ensure_ascii=False))


def _xml_call(name: str, body: str, tools: Tools) -> ToolCall | None:
    types = _types(name, tools)
    arguments = {}
    rest = body.strip()
    while rest:
        key, begun, behind = rest.removeprefix(_PARAMETER).partition(">")
        value, ended, behind = behind.partition(_END_OF_PARAMETER)
        if not rest.startswith(_PARAMETER) or not begun or not ended or not key.strip():
            return None
        arguments[key.strip()] = _typed(value, types.get(key.strip()))
        rest = behind.lstrip()
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False)) if name else None


def _types(name: str, tools: Tools) -> dict[str, Any]:
    """The JSON types of a tool's arguments, as far as its schema says."""
    for tool in tools:
        if tool["function"]["name"] == name:
            properties = (tool["function"].get("parameters") or {}).get("properties")
            if isinstance(properties, dict):
                return {key: each.get("type") for key, each in properties.items() if isinstance(each, dict)}
    return {}


def _typed(written: str, kind: object) -> Any:
    """A value by its schema; without one, what reads as JSON is that, and everything else a text."""
    text = written.removeprefix("\n").removesuffix("\n")
    if kind == "string":
        return text
    value = _parsed(text)
    return text if value is None and text.strip() != "null" else value


def _parsed(text: str) -> Any:
    """The JSON value that a text is; None where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
