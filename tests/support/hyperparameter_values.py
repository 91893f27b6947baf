"""A value of each hyperparameter that isn't its default, so that one that is lost on the way shows."""

from __future__ import annotations

import json
from typing import Any

from sienn_ray.training.hyperparameters import HYPERPARAMETERS, Hyperparameter, config_of

_NAMES = ("q_proj", "v_proj")


def other_values() -> dict[str, Any]:
    """Values by name; together they make a configuration."""
    return {each.name: _other(each) for each in HYPERPARAMETERS}


def as_options(values: dict[str, Any]) -> list[str]:
    """The same as words of a command line."""
    words = []
    for each in HYPERPARAMETERS:
        value = values[each.name]
        if isinstance(value, bool):
            words.append(each.option if value else each.option.replace("--", "--no-", 1))
        else:
            words += [each.option, _word(value)]
    return words


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _other(hyperparameter: Hyperparameter) -> Any:
    default = hyperparameter.field.default
    if tuple in hyperparameter.types:
        return _NAMES
    if dict in hyperparameter.types:
        return {"enable_thinking": False, "reasoning_effort": "low"}
    if hyperparameter.choices:
        return next(word for word in hyperparameter.choices if word != default)
    if bool in hyperparameter.types:
        return not default
    kind = hyperparameter.option_type
    limits = [
        getattr(limit, end) for limit in hyperparameter.field.metadata for end in ("ge", "le") if hasattr(limit, end)
    ]
    candidates = (kind(value) for value in (1, 2, 0.25, 1e-4, 256, *limits))
    return next(value for value in candidates if value != default and _is_within(hyperparameter, value))


def _is_within(hyperparameter: Hyperparameter, value: Any) -> bool:
    try:
        config_of("owner/base", {hyperparameter.name: value})
    except ValueError:
        return False
    return True
