"""A field with an enum takes, gives and documents what a `Literal` of its values would."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from sienn_ray.api.schemas.common import Inline, RequestBody, ResponseBody
from sienn_ray.api.schemas.exports import FailureName, FormatName, QuantizationName, StatusName
from sienn_ray.api.schemas.jobs import JobStatusName


class Colour(StrEnum):
    """Colours."""

    RED = "red"
    DARK_BLUE = "dark-blue"


class AsEnum(RequestBody):
    """Text."""

    colour: Annotated[Colour, Inline()] = Field(description="Which.", examples=["red"])
    other: Annotated[Colour, Inline()] | None = Field(None, description="Which other.")


class AsLiteral(RequestBody):
    """Text."""

    colour: Literal["red", "dark-blue"] = Field(description="Which.", examples=["red"])
    other: Literal["red", "dark-blue"] | None = Field(None, description="Which other.")


def faults(kind: type[BaseModel], body: dict[str, Any]) -> Any:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    return caught.value.errors(include_url=False)


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_schema_is_that_of_a_literal(mode: Literal["validation", "serialization"]) -> None:
    as_enum, as_literal = (kind.model_json_schema(mode=mode) for kind in (AsEnum, AsLiteral))
    assert as_enum == {**as_literal, "title": "AsEnum"}


@pytest.mark.parametrize("value", ["green", "RED", "RED ", "", 1, True, None, ["red"], {"red": 1}, b"red", 0.5])
def test_faults_are_those_of_a_literal(value: Any) -> None:
    assert faults(AsEnum, {"colour": value}) == faults(AsLiteral, {"colour": value})


def test_member_goes_in_and_its_value_comes_out() -> None:
    body = AsEnum.model_validate({"colour": "dark-blue", "other": Colour.RED})
    assert body.colour is Colour.DARK_BLUE
    assert body.other is Colour.RED
    assert body.model_dump_json() == '{"colour":"dark-blue","other":"red"}'
    assert body.model_dump() == {"colour": "dark-blue", "other": "red"}


@pytest.mark.parametrize("name", [FormatName, StatusName, FailureName, QuantizationName, JobStatusName])
def test_each_name_of_the_api_is_inline(name: Any) -> None:
    class Body(ResponseBody):
        field: name

    assert Body.model_json_schema()["properties"]["field"]["enum"] == [member.value for member in name.__origin__]
