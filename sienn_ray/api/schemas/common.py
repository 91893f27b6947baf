"""Parts that all bodies share: strictness, timestamps, the shape of errors, example ids."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

# Example ids, as they are shown in the interactive documentation.
DATASET_ID = "f8e7d3b2-1234-5678-9abc-def012345678"
OTHER_DATASET_ID = "0b9c7a54-4321-4765-8cba-fed098765432"
JOB_ID = "a1b2c3d4-5678-40ef-8123-456789abcdef"

# JSON can escape half of a surrogate pair, which no tokenizer, database or response can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")

_MAX_ITEMS = 1000


def _iso_milliseconds(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    PlainSerializer(_iso_milliseconds, return_type=str),
    Field(description="UTC, ISO 8601 with milliseconds.", examples=["2025-11-12T10:30:00.000Z"]),
]


class Inline:
    """Annotation of an enum whose values stand in the schema of each field, as those of a `Literal` do.

    Pydantic would refer to a schema with the enum's name, which clients that are generated from the document would then
    have as a type. In a strict body, a JSON string is taken.
    """

    def __get_pydantic_core_schema__(self, members: type[StrEnum], _: GetCoreSchemaHandler) -> CoreSchema:
        """Take a member or its value, and write the value."""
        values = core_schema.literal_schema([member.value for member in members])
        return core_schema.no_info_after_validator_function(
            members,
            core_schema.no_info_before_validator_function(
                lambda value: value.value if isinstance(value, members) else value, values
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda member: member.value, return_schema=values
            ),
        )


class RequestBody(BaseModel):
    """Base of request bodies: an unknown field is an error, since it is most likely a misspelt one.

    Types are those of JSON: `"3"` and `true` are no numbers, while `3.0` is the integer that it equals.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        _check_size(value)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _is_text_and_numbers(cls, value: Any) -> Any:
        pending = [value]
        while pending:
            item = pending.pop()
            _check_size(item)
            if isinstance(item, str) and _SURROGATE.search(item):
                raise ValueError("half of a surrogate pair is not a character")
            if isinstance(item, dict):
                pending += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                pending += item
        return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_size(value: Any) -> None:
    """Refuse what would give an error for each of a hundred thousand items."""
    if isinstance(value, list | dict) and len(value) > _MAX_ITEMS:
        raise ValueError(f"{len(value)} items are more than any field takes; at most {_MAX_ITEMS} are read")


class ResponseBody(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorResponse(ResponseBody):
    """Every error of this API."""

    detail: str = Field(description="What is wrong, the limit, and the way out.", examples=["Job a1b2… not found"])
    status_code: int = Field(description="The HTTP status again.", examples=[404])


class OAuthErrorResponse(ErrorResponse):
    """An error of a request for a token, which clients of OAuth 2.0 read as well (RFC 6749, section 5.2)."""

    error: str = Field(description="OAuth's name for it.", examples=["invalid_client"])
    error_description: str = Field(
        description="The detail, in characters that OAuth allows.", examples=["client_id must be the id of an API key"]
    )
