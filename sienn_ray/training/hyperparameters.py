"""The hyperparameters as a flat list, for command lines and tables: made from the fields of `TrainingConfig`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sienn_ray.training.config import LoraSettings, RunHyperparameters, TrainingConfig
from sienn_ray.training.upper_bounds import upper_bound_of

# Fields of `TrainingConfig.lora` by their names in a flat list, where `r` alone would say little.
_LORA_FIELDS = {"lora_r" if name == "r" else name: name for name in LoraSettings.model_fields}


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter.

    Args:
        name: Its name in a flat list.
        field: Its default, limits and description.
        is_of_adapter: Whether it belongs to `TrainingConfig.lora`.
    """

    name: str
    field: FieldInfo
    is_of_adapter: bool = False

    @property
    def option(self) -> str:
        """The name on a command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def types(self) -> set[type]:
        """Types of its values but for None; `str` is one of some words, `tuple` some names, `dict` JSON."""
        return {_plain_type(kind) for kind in _alternatives(self.field.annotation)} - {NoneType}

    @property
    def option_type(self) -> type[bool] | type[int] | type[float] | type[str]:
        """Type of its value on a command line, where names have commas between them and objects are JSON."""
        for kind in (bool, int, float):
            if self.types == {kind}:
                return kind
        return str

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it can be."""
        alternatives = (_without_metadata(kind) for kind in _alternatives(self.field.annotation))
        return tuple(word for kind in alternatives if get_origin(kind) is Literal for word in get_args(kind))

    def parse(self, value: Any) -> Any:
        """Read a value of `option_type`; limits are checked with the configuration."""
        if dict in self.types and isinstance(value, str):
            return _json_of(value)
        is_names = tuple in self.types and isinstance(value, str) and value not in self.choices
        return tuple(value.split(",")) if is_names else value

    @property
    def limits(self) -> str:
        """The limits in words, such as `above 0, to 10`, or nothing where the type says all."""
        if tuple in self.types:
            return f"{', '.join(self.choices)} or names"
        if dict in self.types:
            return "a JSON object"
        if self.choices:
            return " or ".join(filter(None, [", ".join(self.choices[:-1]), self.choices[-1]]))
        bound = _bounds(self.field)
        if int in self.types and "lt" in bound:
            bound["le"] = bound.pop("lt") - 1
        low, high = bound.get("ge", bound.get("gt")), bound.get("le", bound.get("lt"))
        if low is None:
            return ""
        start = f"above {_number(low)}" if "gt" in bound else _number(low)
        if high is None:
            return start if "gt" in bound else f"{start} or more"
        limits = f"{start}{',' if 'gt' in bound else ''} to {'below ' if 'lt' in bound else ''}{_number(high)}"
        raisable = upper_bound_of(self.field)
        return limits if raisable is None else f"{limits}, or what {raisable.variable} of the service says"

    @property
    def default(self) -> str:
        """The default in words, or nothing where the description has it."""
        value = self.field.default
        if value is None or value == {}:
            return ""
        if isinstance(value, bool):
            return "on" if value else "off"
        return value if isinstance(value, str) else _number(value)

    @property
    def help(self) -> str:
        """All of it, as the help of a command line."""
        limits = f"{self.limits}, with commas between them" if tuple in self.types else self.limits
        facts = "; ".join(filter(None, [limits, self.default and f"default {self.default}"]))
        return f"{self.field.description} ({facts})" if facts else str(self.field.description)


HYPERPARAMETERS: tuple[Hyperparameter, ...] = (
    *(Hyperparameter(name, field) for name, field in RunHyperparameters.model_fields.items()),
    *(Hyperparameter(flat, LoraSettings.model_fields[name], is_of_adapter=True) for flat, name in _LORA_FIELDS.items()),
)


def parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the hyperparameters among a command line's options, by name."""
    return {each.name: each.parse(options[each.name]) for each in HYPERPARAMETERS}


def config_of(base_model: str, values: Mapping[str, Any]) -> TrainingConfig:
    """Build the configuration of flat values.

    Raises:
        ValidationError: A value is outside its limits, or doesn't go with another one.

    Example:
        >>> config_of("HuggingFaceTB/SmolLM2-135M-Instruct", {"lora_r": 8, "num_epochs": 2}).lora.r
        8
    """
    lora = LoraSettings(**{name: values[flat] for flat, name in _LORA_FIELDS.items() if flat in values})
    own = {name: values[name] for name in RunHyperparameters.model_fields if name in values}
    return TrainingConfig(base_model=base_model, lora=lora, **own)


def flat_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a dumped configuration under their names in a flat list, without the base model."""
    own = {name: config[name] for name in RunHyperparameters.model_fields}
    return own | {flat: config["lora"][name] for flat, name in _LORA_FIELDS.items()}


def flat_name(field: str) -> str:
    """Name in a flat list of a field of `TrainingConfig` or of its `lora`."""
    return next((flat for flat, name in _LORA_FIELDS.items() if name == field), field)


def _bounds(field: FieldInfo) -> dict[str, float]:
    names = ("ge", "gt", "le", "lt")
    return {name: getattr(limit, name) for limit in field.metadata for name in names if hasattr(limit, name)}


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def _without_metadata(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _plain_type(annotation: Any) -> type:
    """Type of one alternative.

    Raises:
        TypeError: Command lines have no way to say it yet.
    """
    kind = _without_metadata(annotation)
    if get_origin(kind) is Literal:
        return str
    found = get_origin(kind) or kind
    if found not in {bool, int, float, tuple, dict, NoneType}:
        raise TypeError(f"no option for a hyperparameter of type {annotation}; add it to `Hyperparameter.parse`")
    return found  # type: ignore[no-any-return]


def _json_of(text: str) -> Any:
    """Read JSON; what isn't any stays the text, which the field's own check refuses in its words."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number(value: float) -> str:
    """Write a number as people do: 0.5, 3, 1e-5, 2592000."""
    return str(int(value)) if float(value).is_integer() else repr(value).replace("e-0", "e-")
