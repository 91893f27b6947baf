"""Tools of a row and their calls, checked: OpenAI's form of functions, today's and the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.datasets.json_values import json_object, json_text, parsed
from sienn_ray.datasets.schema import ToolCall
from sienn_ray.datasets.values import filled, string
from sienn_ray.datasets.wording import kind_of, listed, shown
from sienn_ray.errors import InvalidDatasetError

# One thing under the names that providers and models have for it: OpenAI, Llama, Anthropic, LangChain.
_ARGUMENTS = ("arguments", "parameters", "input", "args")
_FUNCTION_KEYS = frozenset({"name", *_ARGUMENTS})
_AROUND_KEYS = frozenset({"id", "type", "index"})  # index: a call's place, which streamed answers have
# Keys of a call without an object `function` around its name and its arguments.
CALL_KEYS = _FUNCTION_KEYS | _AROUND_KEYS
_NOTHING: tuple[object, ...] = (None, "", [], {})


def tools_text(value: object, what: str) -> str | None:
    """Check the tools of a row and return them as the text of a JSON list; None where there are none.

    Args:
        value: A list of tools, or its text. A tool may come without the `{"type": "function", "function": ...}` around
            it, which is added then.
        what: Their name in errors.

    Raises:
        InvalidDatasetError: They aren't tools.
    """
    if value is None or value == "":
        return None
    tools = parsed(value, what)
    if not isinstance(tools, list):
        raise InvalidDatasetError(f"{what} must be a list of tools, got {kind_of(tools)}")
    checked = [_tool(tool, f"{what}[{index}]") for index, tool in enumerate(tools)]
    return json_text(checked, what) if checked else None


def calls_of(message: Mapping[str, Any], what: str) -> tuple[ToolCall, ...]:
    """Check the calls of an assistant's message; `what` names it in errors.

    Raises:
        InvalidDatasetError: They aren't calls.
    """
    calls, old = message.get("tool_calls"), message.get("function_call")
    if calls and old:
        raise InvalidDatasetError(f"{what} has both tool_calls and function_call; keep tool_calls")
    if old:  # OpenAI's form before calls had ids
        return (_function(old, f"{what}.function_call", None),)
    if not calls:
        return ()
    found = parsed(calls, f"{what}.tool_calls")
    if not isinstance(found, list):
        raise InvalidDatasetError(f"{what}.tool_calls must be a list of calls, got {kind_of(found)}")
    return tuple(_call(call, f"{what}.tool_calls[{index}]") for index, call in enumerate(found))


def _tool(tool: object, what: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise InvalidDatasetError(f"{what} must be an object, got {kind_of(tool)}")
    kind = tool.get("type", "function")
    if kind != "function" and "function" in tool:
        raise InvalidDatasetError(f"{what}.type must be 'function', got {_found(kind)}")
    function = tool.get("function", tool)
    place = f"{what}.function" if "function" in tool else what
    if not isinstance(function, dict) or "name" not in function:
        found = f"it has {listed(function)}" if isinstance(function, dict) else f"it is {kind_of(function)}"
        raise InvalidDatasetError(
            f"{place} must be an object with a name, a description and parameters, as OpenAI's functions are; {found}"
        )
    filled(string(function["name"], f"{place}.name"), f"{place}.name")
    return tool if "function" in tool else {"type": "function", "function": _without_type(tool)}


def _without_type(tool: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if key != "type" or value != "function"}


def _call(call: object, what: str) -> ToolCall:
    if not isinstance(call, dict):
        raise InvalidDatasetError(f"{what} must be an object, got {kind_of(call)}")
    kind = call.get("type") or "function"
    if kind != "function":
        raise InvalidDatasetError(f"{what}.type must be 'function', got {_found(kind)}")
    call_id = call.get("id")
    identity = None if call_id is None else string(call_id, f"{what}.id")
    if "function" not in call:
        return _function(call, what, identity, CALL_KEYS)
    _check_keys(
        call,
        _AROUND_KEYS | {"function"},
        what,
        "a call may have id, type and function, and what is passed goes into arguments",
    )
    return _function(call["function"], f"{what}.function", identity)


def _function(function: object, what: str, call_id: str | None, known: frozenset[str] = _FUNCTION_KEYS) -> ToolCall:
    if not isinstance(function, dict) or "name" not in function:
        found = f"it has {listed(function)}" if isinstance(function, dict) else f"it is {kind_of(function)}"
        raise InvalidDatasetError(f"{what} must be an object with a name and arguments; {found}")
    name = filled(string(function["name"], f"{what}.name"), f"{what}.name")
    _check_keys(function, known, what, "a function that is called may have a name and arguments")
    given = [key for key in _ARGUMENTS if function.get(key) not in _NOTHING]
    for other in given[1:]:
        if function[other] != function[given[0]]:
            raise InvalidDatasetError(f"{what} has both {given[0]} and {other}, which differ; keep arguments")
    key = given[0] if given else next((key for key in _ARGUMENTS if key in function), "arguments")
    return ToolCall(name, _arguments(function.get(key), f"{what}.{key}"), call_id)


def _check_keys(values: Mapping[str, Any], known: frozenset[str], what: str, advice: str) -> None:
    """Refuse other keys that say something, since nothing would be learned of them."""
    unknown = [key for key, value in values.items() if key not in known and value not in _NOTHING]
    if unknown:
        raise InvalidDatasetError(f"{what} has {listed(unknown)}, which no call is read from; {advice}; remove it")


def _arguments(value: object, what: str) -> str:
    """The arguments as text: the very one that the row has, or that of its object."""
    if value is None or value == "":
        return "{}"
    found = json_object(value, what)
    text = json_text(found, what)
    return value if isinstance(value, str) else text


def _found(kind: object) -> str:
    return shown(kind) if isinstance(kind, str) else kind_of(kind)
