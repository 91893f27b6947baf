"""Upper bounds of hyperparameters that whoever runs the service may raise: settings, 10 epochs and so on by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from sienn_ray.settings import ENV_PREFIX, Settings

# In a JSON schema, beside `maximum`: the environment variable that it comes from.
SETTING_KEY = "x-setting"


@dataclass(frozen=True)
class UpperBound:
    """Marks a field whose upper bound is a setting, in its metadata.

    A type is the same for all services of a process, and for runs that began under other settings, so its validation
    knows no bound: `check` does.

    Args:
        setting: Name of the field of `Settings`.
    """

    setting: str

    @property
    def variable(self) -> str:
        """The environment variable that raises it."""
        return Settings.variable(self.setting)

    @classmethod
    def of_variable(cls, variable: str) -> UpperBound:
        """Return the bound of an environment variable."""
        return cls(variable.removeprefix(ENV_PREFIX).lower())

    @property
    def le(self) -> int:
        """The bound where nobody has raised it."""
        return int(Settings.model_fields[self.setting].default)

    def of(self, settings: Settings) -> int:
        """Return the bound that a service has."""
        return int(getattr(settings, self.setting))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Have the schema say the bound that nobody has raised, and where it comes from."""
        return {**handler(schema), "maximum": self.le, SETTING_KEY: self.variable}


def upper_bound_of(field: FieldInfo) -> UpperBound | None:
    """Return a field's bound that can be raised, if it has one."""
    return next((each for each in field.metadata if isinstance(each, UpperBound)), None)


def upper_bounds_of(model: type[BaseModel]) -> dict[str, UpperBound]:
    """Return the bounds that can be raised, by field."""
    found = {name: upper_bound_of(field) for name, field in model.model_fields.items()}
    return {name: bound for name, bound in found.items() if bound is not None}


def check(
    values: Mapping[str, Any], bounds: Mapping[str, UpperBound], settings: Settings, within: Iterable[str] = ()
) -> None:
    """Check values against the bounds that a service has.

    Args:
        values: Values by field; each is a number.
        bounds: Bounds by field.
        settings: Of the service.
        within: The place of the fields, for the error.

    Raises:
        ValidationError: A value is larger than its bound.
    """
    too_large = [name for name, bound in bounds.items() if name in values and values[name] > bound.of(settings)]
    if too_large:
        faults = [_fault(bounds[name], settings, (*within, name), values[name]) for name in too_large]
        raise ValidationError.from_exception_data("Hyperparameters", faults)


def _fault(bound: UpperBound, settings: Settings, where: tuple[str, ...], value: Any) -> InitErrorDetails:
    context = {"le": bound.of(settings), "variable": bound.variable}
    words = "has to be less than or equal to {le}, unless who runs the service raises {variable}"
    return InitErrorDetails(type=PydanticCustomError("less_than_equal", words, context), loc=where, input=value)
