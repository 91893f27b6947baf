"""The messages of a conversation, in the form that the OpenAI API made common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.api.schemas.echoed_messages import read_back
from sienn_ray.api.schemas.tools import MAX_CALLS, ToolCallBody
from sienn_ray.errors import RefusedPromptError
from sienn_ray.inference.engine import ChatMessage
from sienn_ray.jobs.ids import shown

MAX_TEXT_CHARS = 100_000
MAX_MESSAGES = 1000
MAX_PARTS = 100
VARIABLES = (
    "Values of the chat template's variables, over those that the adapter was trained with; a name that the template "
    "doesn't have is refused."
)
# Clients send an answer back as they got it, with fields that say nothing.
_ECHOED = frozenset({"annotations", "audio", "function_call", "refusal"})
# And with those that nothing is read from.
_IGNORED = frozenset({"id", "index", "reasoning_details"})
_TEXT_KINDS = ("text", "input_text", "output_text")


class TextPart(RequestBody):
    """A part of a message."""

    type: Literal["text", "input_text", "output_text"] = Field(description="Other kinds of parts aren't accepted.")
    text: str = Field(max_length=MAX_TEXT_CHARS, description="The part's text.", examples=["What is LoRA?"])

    @model_validator(mode="before")
    @classmethod
    def _without_what_says_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: field for name, field in value.items() if name in cls.model_fields or not _says_nothing(name, field)
        }


def _says_nothing(name: str, field: Any) -> bool:
    """Whether a field of a part changes no answer: one that is null, what caches are told, notes on an answer."""
    return field is None or name == "cache_control" or (name in {"annotations", "logprobs"} and not field)


def _only_text(value: Any) -> Any:
    if isinstance(value, dict) and "type" in value:  # a part that isn't in a list
        value = [value]
    several = value if isinstance(value, list) else []
    for part in [*several, *(inner for each in several if isinstance(each, list) for inner in each)]:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in _TEXT_KINDS:
            raise ValueError(f"a part of type '{shown(kind)}' is not taken; send parts of type 'text'")
    return value


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Part = TextPart | Text
# Some clients put a list of parts in the place of a part.
Parts = Annotated[list[Part | Annotated[list[Part], Field(max_length=MAX_PARTS)]], Field(max_length=MAX_PARTS)]


def _refuse_functions(role: Any) -> Any:
    if role == "function":
        raise ValueError("messages of functions are not supported here; send the role 'tool' with a tool_call_id")
    return role


class MessageBody(RequestBody):
    """One message of a conversation."""

    model_config = ConfigDict(title="Message")

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool"], BeforeValidator(_refuse_functions)] = (
        Field(description="Whose it is; `developer` is another word for `system`.")
    )
    content: Annotated[Text | Parts | None, BeforeValidator(_only_text)] = Field(
        description="Its text, as one string or in parts, which are joined by line breaks; null is an empty one. It "
        "may be missing beside `tool_calls`.",
        examples=["What is LoRA?"],
    )
    reasoning_content: Text | None = Field(
        None, description="The assistant's reasoning before its answer, for templates that read it.", examples=[None]
    )
    tool_calls: Annotated[list[ToolCallBody], Field(max_length=MAX_CALLS)] | None = Field(
        None, description="Calls of tools, in an assistant's message.", examples=[None]
    )
    tool_call_id: str | None = Field(
        None, max_length=200, description="The call whose result a tool's message has.", examples=[None]
    )
    name: str | None = Field(
        None,
        max_length=MAX_TEXT_CHARS,
        description="The speaker's or the tool's, for templates that read it.",
        examples=[None],
    )
    prefix: bool | None = Field(
        None, description="Of the last message, the assistant's: go on with it.", examples=[False]
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_says_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        said = {name: field for name, field in read_back(value).items() if field or name not in _ECHOED}
        if said.get("function_call") is not None:
            raise ValueError("function_call: the older form of calls is not supported here; send tool_calls")
        if said.get("tool_calls"):
            said.setdefault("content", None)
        # Null says nothing, of whatever field but the one that has to be there.
        return {
            name: field
            for name, field in said.items()
            if name not in _IGNORED and (field is not None or name == "content" or name == "role")
        }

    @model_validator(mode="after")
    def _has_what_its_role_has(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise RefusedPromptError(
                f"tool_calls: a message of the role '{self.role}' has none; they are the assistant's", field="messages"
            )
        if self.prefix and self.role != "assistant":
            raise RefusedPromptError("prefix: only a message of the assistant can be gone on with", field="messages")
        return self

    @property
    def chat_message(self) -> ChatMessage:
        """The message that the engine takes."""
        return ChatMessage(
            self.role,
            _joined(self.content or ""),
            reasoning_content=self.reasoning_content or None,
            tool_calls=tuple(call.tool_call for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id or None,
            name=self.name or None,
        )


def _joined(content: str | TextPart | Sequence[Any]) -> str:
    if isinstance(content, TextPart):
        return content.text
    return content if isinstance(content, str) else "\n".join(map(_joined, content))


Messages = Annotated[list[MessageBody], Field(min_length=1, max_length=MAX_MESSAGES)]
