"""The messages of a conversation, in the form that the OpenAI API made common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sienn_ray.api.schemas.common import RequestBody
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
_ECHOED = frozenset({"annotations", "audio", "function_call", "refusal", "tool_calls"})
# And with those that say what isn't read again: chat templates leave the reasoning of earlier turns out.
_IGNORED = frozenset({"id", "reasoning", "reasoning_content", "reasoning_details"})
_OF_TOOLS = frozenset({"function_call", "tool_call_id", "tool_calls"})


class TextPart(RequestBody):
    """A part of a message."""

    type: Literal["text"] = Field(description="Other kinds of parts aren't accepted.")
    text: str = Field(max_length=MAX_TEXT_CHARS, description="The part's text.", examples=["What is LoRA?"])


def _only_text(value: Any) -> Any:
    several = value if isinstance(value, list) else []
    for part in [*several, *(inner for each in several if isinstance(each, list) for inner in each)]:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise ValueError(f"a part of type '{shown(kind)}' is not taken; send parts of type 'text'")
    return value


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Part = TextPart | Text
# Some clients put a list of parts in the place of a part.
Parts = Annotated[list[Part | Annotated[list[Part], Field(max_length=MAX_PARTS)]], Field(max_length=MAX_PARTS)]


def _refuse_tools(role: Any) -> Any:
    if isinstance(role, str) and role in {"tool", "function"}:
        raise ValueError("tool calls are not supported here; leave messages of tools out")
    return role


class MessageBody(RequestBody):
    """One message of a conversation."""

    model_config = ConfigDict(title="Message")

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_refuse_tools)] = Field(
        description="Whose it is; `developer` is another word for `system`."
    )
    content: Annotated[Text | Parts | None, BeforeValidator(_only_text)] = Field(
        description="Its text, as one string or in parts, which are joined by line breaks; null is an empty one.",
        examples=["What is LoRA?"],
    )
    name: str | None = Field(None, description="Accepted and ignored.", examples=[None])

    @model_validator(mode="before")
    @classmethod
    def _without_what_says_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        said = {name: field for name, field in value.items() if field or name not in _ECHOED}
        if tools := [name for name in said if name in _OF_TOOLS and said[name] is not None]:
            raise ValueError(f"{tools[0]}: tool calls are not supported here; leave the field out")
        # Null says nothing, of whatever field.
        return {
            name: field
            for name, field in said.items()
            if name not in _IGNORED and (field is not None or name in cls.model_fields)
        }

    @property
    def chat_message(self) -> ChatMessage:
        """The message that the engine takes."""
        return ChatMessage("system" if self.role == "developer" else self.role, _joined(self.content or ""))


def _joined(content: str | TextPart | Sequence[Any]) -> str:
    if isinstance(content, TextPart):
        return content.text
    return content if isinstance(content, str) else "\n".join(map(_joined, content))


Messages = Annotated[list[MessageBody], Field(min_length=1, max_length=MAX_MESSAGES)]
