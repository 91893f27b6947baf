"""Messages and tools in the form that a chat template takes, with users' special tokens kept as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sienn_ray.datasets.content_form import form_of
from sienn_ray.datasets.literal_text import literal_values
from sienn_ray.datasets.tool_form import call_form, reads_tools, reasoning_key, result_form
from sienn_ray.errors import InvalidDatasetError

_WAY_OUT = "choose a base model whose template has a place for them, or write them into contents as text"
# What is for us alone: templates don't know of it.
_OURS = frozenset({"weight", "prefix"})


def template_messages(
    tokenizer: Any, chat_template: str | None, messages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Bring messages into a template's form.

    Args:
        tokenizer: The base model's.
        chat_template: The template.
        messages: Messages in OpenAI's form.

    Raises:
        InvalidDatasetError: The template has no place for calls of tools, or for their results.
    """
    formed = [_formed(tokenizer, chat_template, messages, index) for index in range(len(messages))]
    return form_of(tokenizer, chat_template).of(formed)


def template_tools(
    tokenizer: Any, chat_template: str | None, tools: Sequence[Mapping[str, Any]] | None
) -> list[Any] | None:
    """Bring tools into a template's form; no tools are none.

    Raises:
        InvalidDatasetError: The template has no place for them.
    """
    if not tools:
        return None
    if not reads_tools(tokenizer, chat_template):
        raise InvalidDatasetError(f"the base model's chat template leaves tools out; {_WAY_OUT}")
    return [literal_values(tokenizer, tool) for tool in tools]


def _formed(
    tokenizer: Any, chat_template: str | None, messages: Sequence[Mapping[str, Any]], index: int
) -> dict[str, Any]:
    message = messages[index]
    if message["role"] == "tool":
        return _result(tokenizer, chat_template, messages, index)
    if len(message) == 2:  # role and content
        return {"role": message["role"], "content": literal_values(tokenizer, message["content"])}
    formed = {key: value for key, value in message.items() if key not in _OURS}
    if formed.get("tool_calls"):
        form = call_form(tokenizer, chat_template)
        if form is None:
            raise InvalidDatasetError(f"the base model's chat template leaves calls of tools out; {_WAY_OUT}")
        formed = form.of(formed)
    formed = {**literal_values(tokenizer, formed), "role": message["role"]}
    return _with_reasoning(formed, reasoning_key(tokenizer, chat_template)) if "reasoning_content" in formed else formed


def _result(
    tokenizer: Any, chat_template: str | None, messages: Sequence[Mapping[str, Any]], index: int
) -> dict[str, Any]:
    form = result_form(tokenizer, chat_template)
    if form is None:
        raise InvalidDatasetError(f"the base model's chat template leaves tools' messages out; {_WAY_OUT}")
    message = {key: value for key, value in messages[index].items() if key not in _OURS}
    if form.has_names and "name" not in message and (name := _called(messages, index)):
        message["name"] = name
    return {**literal_values(tokenizer, message), "role": "tool"}


def _called(messages: Sequence[Mapping[str, Any]], index: int) -> str | None:
    """The tool whose call a message answers: the one with its id, else the one at its place."""
    last = next((place for place in range(index - 1, -1, -1) if messages[place]["role"] != "tool"), None)
    calls = [] if last is None else messages[last].get("tool_calls") or []
    call_id = messages[index].get("tool_call_id")
    named = [call for call in calls if call_id is not None and call.get("id") == call_id]
    at_place = [] if last is None else calls[index - last - 1 : index - last]
    name: str | None = next((call["function"]["name"] for call in (*named, *at_place)), None)
    return name


def _with_reasoning(message: dict[str, Any], key: str | None) -> dict[str, Any]:
    """Put reasoning where a template reads it; what leaves it out drops it, as it does in earlier turns."""
    reasoning = message.pop("reasoning_content")
    match key:
        case None:
            return message
        case "content":
            return {**message, "content": f"<think>\n{reasoning}\n</think>\n\n{message['content'] or ''}"}
        case _:
            return {**message, key: reasoning}
