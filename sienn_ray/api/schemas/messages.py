"""The messages of a conversation, in the form that the OpenAI API made common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.inference.engine import ChatMessage
from sienn_ray.jobs.ids import shown

MAX_TEXT_CHARS = 100_000
MAX_MESSAGES = 1000
MAX_PARTS = 100
# Clients send an answer back as they got it, with fields that say nothing.
_ECHOED = frozenset({"annotations", "audio", "function_call", "refusal", "tool_calls"})


class TextPart(RequestBody):
    """A part of a message."""

    type: Literal["text"] = Field(description="Other kinds of parts aren't accepted.")
    text: str = Field(max_length=MAX_TEXT_CHARS, description="The part's text.", examples=["What is LoRA?"])


def _only_text(value: Any) -> Any:
    for part in value if isinstance(value, list) else []:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise ValueError(f"a part of type '{shown(kind)}' is not taken; send parts of type 'text'")
    return value


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Parts = Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]


class MessageBody(RequestBody):
    """One message of a conversation."""

    model_config = ConfigDict(title="Message")

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="Whose it is; `developer` is another word for `system`."
    )
    content: Annotated[Text | Parts, BeforeValidator(_only_text)] = Field(
        description="Its text, as one string or in parts, which are joined by line breaks.", examples=["What is LoRA?"]
    )
    name: str | None = Field(None, description="Accepted and ignored.", examples=[None])

    @model_validator(mode="before")
    @classmethod
    def _without_what_says_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if field or name not in _ECHOED}

    @property
    def chat_message(self) -> ChatMessage:
        """The message that the engine takes."""
        content = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return ChatMessage("system" if self.role == "developer" else self.role, content)


Messages = Annotated[list[MessageBody], Field(min_length=1, max_length=MAX_MESSAGES)]
