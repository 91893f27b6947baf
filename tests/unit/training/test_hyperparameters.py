from __future__ import annotations

import ast
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from sienn_ray.training import config
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.hyperparameters import HYPERPARAMETERS, Hyperparameter, config_of, flat_values
from tests.support.hyperparameter_values import other_values


def test_every_field_of_the_configuration_is_one() -> None:
    fields = {name for name in TrainingConfig.model_fields if name not in {"base_model", "base_model_revision", "lora"}}
    assert {each.name for each in HYPERPARAMETERS if not each.is_of_adapter} == fields
    adapter = {"r" if each.name == "lora_r" else each.name for each in HYPERPARAMETERS if each.is_of_adapter}
    assert adapter == set(LoraSettings.model_fields)


def test_each_has_words_and_an_example() -> None:
    assert [each.name for each in HYPERPARAMETERS if not (each.field.description and each.field.examples)] == []


@pytest.mark.parametrize("each", HYPERPARAMETERS, ids=lambda each: each.name)
def test_defaults_and_examples_are_within_the_limits(each: Hyperparameter) -> None:
    for value in (each.field.default, *(each.field.examples or ())):
        config_of("owner/base", {each.name: value})


def test_words_are_for_every_surface() -> None:
    # JSON says null and Python None, a command line neither.
    assert [each.name for each in HYPERPARAMETERS if {"null", "None"} & set(each.help.split())] == []


def test_each_is_read_by_a_run() -> None:
    read = {
        node.attr
        for path in Path(config.__file__).parent.glob("**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert [each.name for each in HYPERPARAMETERS if ("r" if each.name == "lora_r" else each.name) not in read] == []


def test_flat_values_come_back() -> None:
    values = other_values()
    assert flat_values(config_of("owner/base", values).model_dump()) == values
    default = flat_values(TrainingConfig(base_model="m").model_dump())
    assert [name for name in values if values[name] == default[name]] == []


class Examples(BaseModel):
    between: int = Field(4, ge=1, le=32)
    below: int = Field(42, ge=0, lt=2**31)
    share: float = Field(0.0, ge=0.0, lt=1.0)
    above: float = Field(1.0, gt=0.0)
    above_to: float | None = Field(None, gt=0.0, le=2592000.0)
    least: int | None = Field(None, ge=1)
    small: float = Field(2e-4, ge=1e-5, le=1e-3)
    word: Literal["one"] | None = None
    words: Literal["one", "two", "three"] = "two"
    flag: bool = False
    maybe: bool | None = None
    names: Literal["all"] | tuple[str, ...] = "all"


@pytest.mark.parametrize(
    ("name", "limits", "default", "kind"),
    [
        ("between", "1 to 32", "4", int),
        ("below", "0 to 2147483647", "42", int),
        ("share", "0 to below 1", "0", float),
        ("above", "above 0", "1", float),
        ("above_to", "above 0, to 2592000", "", float),
        ("least", "1 or more", "", int),
        ("small", "1e-5 to 0.001", "0.0002", float),
        ("word", "one", "", str),
        ("words", "one, two or three", "two", str),
        ("flag", "", "off", bool),
        ("maybe", "", "", bool),
        ("names", "all or names", "all", str),
    ],
)
def test_limits_in_words(name: str, limits: str, default: str, kind: type) -> None:
    found = Hyperparameter(name, Examples.model_fields[name])
    assert (found.limits, found.default, found.option_type) == (limits, default, kind)


def test_a_type_that_no_command_line_has_is_told_when_it_is_added() -> None:
    class Config(BaseModel):
        extra: set[str] = set()

    with pytest.raises(TypeError, match=r"no option for a hyperparameter of type set\[str\]"):
        _ = Hyperparameter("extra", Config.model_fields["extra"]).option_type
