"""Rows in storage: a message's fields beside role and content are one JSON string, which plain messages don't have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sienn_ray.datasets.schema import Message, Role, ToolCall

# Those of `schema.PARQUET_SCHEMA` that a row's content is in. Datasets of earlier versions lack some.
CONTENT_COLUMNS = ("messages", "text", "rejected", "rejected_extra", "tools", "label", "chat_template_kwargs")
# What a message without anything but role and content has behind these.
_NOTHING = Message(Role.USER, "")[2:]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """The content of a row as it is read from storage; see `schema.CanonicalRow`.

    Args:
        messages: Turns in OpenAI's form: role and content, and whatever else they have.
        text: Plain text.
        rejected: The other answer, a message of the assistant.
        tools: Tools in OpenAI's form.
        label: Whether the last message is a good answer.
        chat_template_kwargs: Variables of the chat template.
    """

    messages: list[dict[str, Any]] | None
    text: str | None
    rejected: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    label: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Read a row by column; columns that a dataset of an earlier version lacks are null.

        Args:
            row: Values by the names of `CONTENT_COLUMNS`, as pyarrow gives them.
        """
        messages, rejected = row["messages"], row.get("rejected")
        return cls(
            messages=None if messages is None else [_said(each, each.get("extra")) for each in messages],
            text=row["text"],
            rejected=None if rejected is None else _rejected(rejected, row.get("rejected_extra")),
            tools=_parsed(row.get("tools")),
            label=row.get("label"),
            chat_template_kwargs=_parsed(row.get("chat_template_kwargs")),
        )


def message_form(message: Message) -> dict[str, Any]:
    """Return a message in OpenAI's form, which is what chat templates take."""
    return {"role": str(message.role), "content": message.content, **_fields(message)}


def message_of(said: Mapping[str, Any]) -> Message:
    """Read a message of `StoredRow` back."""
    calls = (ToolCall(each["function"]["name"], each["function"]["arguments"], each.get("id")) for each in _calls(said))
    return Message(
        role=Role(said["role"]),
        content=said["content"],
        reasoning_content=said.get("reasoning_content"),
        tool_calls=tuple(calls),
        tool_call_id=said.get("tool_call_id"),
        name=said.get("name"),
        weight=said.get("weight", 1),
        is_prefix=said.get("prefix", False),
    )


def extra_of(message: Message) -> str | None:
    """Return what a message has beside role and content, as JSON; None where there is nothing."""
    if message[2:] == _NOTHING:
        return None
    return json.dumps(_fields(message), ensure_ascii=False)


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if message.reasoning_content is not None:
        fields["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        fields["tool_calls"] = [_call_form(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        fields["name"] = message.name
    if message.weight != 1:
        fields["weight"] = message.weight
    if message.is_prefix:
        fields["prefix"] = True
    return fields


def _call_form(call: ToolCall) -> dict[str, Any]:
    function = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return function if call.id is None else {"id": call.id, **function}


def _said(message: Mapping[str, Any], extra: str | None) -> dict[str, Any]:
    said = {"role": message["role"], "content": message["content"]}
    return said if extra is None else {**said, **json.loads(extra)}


def _rejected(content: str, extra: str | None) -> dict[str, Any]:
    return _said({"role": str(Role.ASSISTANT), "content": content}, extra)


def _calls(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = said.get("tool_calls") or []
    return calls


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)
