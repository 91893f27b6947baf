"""Upper bounds that are settings: refused as any other value outside its limits, and said in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from sienn_ray.settings import Settings
from sienn_ray.training.upper_bounds import SETTING_KEY, UpperBound, check


def refuse_beyond(values: Mapping[str, Any], bounds: Mapping[str, UpperBound], settings: Settings, within: str) -> None:
    """Refuse values that are larger than the service takes.

    Args:
        values: Values by field.
        bounds: Bounds by field.
        settings: Of the service.
        within: `body` or `query`.

    Raises:
        RequestValidationError: A value is.
    """
    try:
        check(values, bounds, settings, [within])
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def say_bounds(part: Any, settings: Settings) -> None:
    """Write the bounds of a service into a JSON schema, or into a document with many of them."""
    if isinstance(part, list):
        for inner in part:
            say_bounds(inner, settings)
    elif isinstance(part, dict):
        if isinstance(name := part.get(SETTING_KEY), str):
            part["maximum"] = UpperBound.of_variable(name).of(settings)
        for inner in part.values():
            say_bounds(inner, settings)
