"""Parts that all bodies share: strictness, timestamps, the shape of errors, example ids."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, field_validator, model_validator

# Example ids, as they are shown in the interactive documentation.
DATASET_ID = "f8e7d3b2-1234-5678-9abc-def012345678"
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
