"""Tools that a model may call, and its calls, in the form that the OpenAI API made common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.errors import RefusedPromptError
from sienn_ray.inference.engine import ToolCall
from sienn_ray.jobs.ids import shown

MAX_TOOLS = 128
MAX_CALLS = 128
MAX_NAME_CHARS = 128
# Of all tools together, and of the arguments of a call.
MAX_TOOLS_CHARS = 200_000
MAX_ARGUMENTS_CHARS = 100_000
_MAX_DEPTH = 32
_MAX_TEXT_CHARS = 20_000

ToolName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


def _bounded(value: Any) -> Any:
    """Refuse what is nested so deeply that a template couldn't write it."""
    level, depth = [value], 0
    while level:
        if depth > _MAX_DEPTH:
            raise RefusedPromptError(f"tools: JSON is nested more than {_MAX_DEPTH} levels deep", field="tools")
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return value


def _only_functions(kind: Any) -> Any:
    if isinstance(kind, str) and kind != "function":
        raise ValueError(f"a tool of type '{shown(kind)}' is not supported here; send tools of type 'function'")
    return kind


Kind = Annotated[Literal["function"], BeforeValidator(_only_functions)]


class FunctionBody(RequestBody):
    """A function that the model may call."""

    model_config = ConfigDict(title="Function")

    name: ToolName = Field(description="Its name.", examples=["opening_hours"])
    description: str | None = Field(
        None, max_length=_MAX_TEXT_CHARS, description="What it does.", examples=["When a shop is open."]
    )
    parameters: Annotated[dict[str, Any], BeforeValidator(_bounded)] | None = Field(
        None, description="Its arguments, as a JSON schema.", examples=[{"type": "object", "properties": {}}]
    )
    strict: bool | None = Field(None, description="Accepted; nothing constrains the arguments.", examples=[None])


class ToolBody(RequestBody):
    """A tool that the model may call."""

    model_config = ConfigDict(title="Tool")

    type: Kind = Field("function", description="Other kinds of tools aren't supported.")
    function: FunctionBody = Field(description="The function.")

    @property
    def as_rows_have_it(self) -> dict[str, Any]:
        """The tool as a template is given it, without what is meant for the service."""
        function = self.function.model_dump(exclude_none=True, exclude={"strict"})
        return {"type": self.type, "function": function}


def _few(tools: list[ToolBody]) -> list[ToolBody]:
    names = [tool.function.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RefusedPromptError(f"tools: two tools have the name '{shown(twice)}'; give each its own", field="tools")
    num_chars = len(json.dumps([tool.as_rows_have_it for tool in tools]))
    if num_chars > MAX_TOOLS_CHARS:
        raise RefusedPromptError(
            f"tools: {num_chars} characters of JSON; at most {MAX_TOOLS_CHARS} are taken", field="tools"
        )
    return tools


Tools = Annotated[list[ToolBody], Field(max_length=MAX_TOOLS), AfterValidator(_few)]


def arguments_text(value: Any) -> Any:
    """The arguments of a call as the text of a JSON object; some clients send the object, or nothing for none.

    Raises:
        RefusedPromptError: They are no JSON object.
    """
    if isinstance(value, dict):
        return json.dumps(_bounded(value), ensure_ascii=False)
    if value is None:
        return "{}"
    if not isinstance(value, str):
        return value
    if not value.strip():
        return "{}"
    try:
        parsed = _bounded(json.loads(value)) if len(value) <= MAX_ARGUMENTS_CHARS else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise RefusedPromptError(
            'tool_calls: arguments have to be the text of a JSON object, such as \'{"day": "Monday"}\'',
            field="messages",
        )
    return value


class CalledFunction(RequestBody):
    """The function that is called."""

    name: ToolName = Field(description="Its name.", examples=["opening_hours"])
    arguments: Annotated[str, Field(max_length=MAX_ARGUMENTS_CHARS), BeforeValidator(arguments_text)] = Field(
        "{}", description="A JSON object, as text.", examples=['{"day": "Monday"}']
    )


class ToolCallBody(RequestBody):
    """A call of a tool that the assistant has made."""

    model_config = ConfigDict(title="ToolCall")

    id: str | None = Field(None, max_length=200, description="Its id, which the tool's message names.", examples=["c1"])
    type: Kind = Field("function", description="Other kinds of calls aren't supported.")
    function: CalledFunction = Field(description="What was called.")

    @model_validator(mode="before")
    @classmethod
    def _without_its_place(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        # Pieces of a stream have their place, which clients leave in.
        return {
            name: field
            for name, field in value.items()
            if name != "index" and (field is not None or name == "function")
        }

    @property
    def tool_call(self) -> ToolCall:
        """The call that the engine takes."""
        return ToolCall(self.function.name, self.function.arguments, self.id)


def _not_forced(value: Any) -> Any:
    if isinstance(value, dict) or value in ("required", "any"):
        raise ValueError("nothing here makes a model call a tool; send 'auto', or 'none' for an answer without calls")
    return value


ToolChoice = Annotated[Literal["none", "auto"], BeforeValidator(_not_forced)]
