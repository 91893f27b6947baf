"""Hyperparameters as options of a command line."""

from __future__ import annotations

import argparse
import math
from typing import Any

from pydantic import ValidationError

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.fault_words import words_of
from sienn_ray.settings import Settings
from sienn_ray.training import hyperparameters
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hyperparameters import HYPERPARAMETERS, Hyperparameter, flat_name
from sienn_ray.training.upper_bounds import check, upper_bounds_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each hyperparameter; the limits stay with `TrainingConfig`."""
    for hyperparameter in HYPERPARAMETERS:
        how: dict[str, Any] = {"type": hyperparameter.option_type, "metavar": _metavar(hyperparameter)}
        if hyperparameter.option_type is bool:
            how = {"action": argparse.BooleanOptionalAction}
        words = hyperparameter.help.replace("%", "%%")
        parser.add_argument(hyperparameter.option, default=hyperparameter.field.default, help=words, **how)


def config_of(base_model: str, arguments: argparse.Namespace, settings: Settings) -> TrainingConfig:
    """Return the configuration that the options ask for.

    Args:
        base_model: Hub id.
        arguments: The options' values; a `validation_dataset` among them is something to evaluate on.
        settings: Of the service, which may have raised a limit.

    Raises:
        TrainingError: A value is outside its limits, or doesn't go with another one.
    """
    values = vars(arguments)
    try:
        config = hyperparameters.config_of(base_model, hyperparameters.parsed(values))
        check(config.model_dump(), upper_bounds_of(TrainingConfig), settings)
    except ValidationError as error:
        raise _refusal(_in_words(error)) from error
    _check_finite(config)
    _check_early_stopping(config, has_validation_dataset=bool(values.get("validation_dataset")))
    return config


def _check_finite(config: TrainingConfig) -> None:
    """Refuse an infinite number: JSON has none, so the job's record couldn't be read."""
    for name, value in config.model_dump().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(f"{_flag(name)} {value}: has to be a finite number")


def _check_early_stopping(config: TrainingConfig, *, has_validation_dataset: bool) -> None:
    if config.early_stopping_patience is not None and config.validation_split == 0 and not has_validation_dataset:
        raise _refusal(
            f"--early-stopping-patience {config.early_stopping_patience} needs rows to evaluate on, and "
            "--validation-split is 0; raise it, or name a --validation-dataset"
        )


def _refusal(message: str) -> TrainingError:
    return TrainingError(message, FailureReason.INVALID_HYPERPARAMETERS)


def _metavar(hyperparameter: Hyperparameter) -> str:
    if dict in hyperparameter.types:
        return "JSON"
    return {int: "N", float: "X"}.get(hyperparameter.option_type, "WORD")


def _in_words(error: ValidationError) -> str:
    """Every fault with its option and value; one of several options together names them itself."""
    return "; ".join(_fault_in_words(fault) for fault in error.errors())


def _fault_in_words(fault: Any) -> str:
    if not fault["loc"]:
        return words_of(fault)
    return f"{_flag(str(fault['loc'][0]))} {fault['input']!r}: {words_of(fault)}"


def _flag(field: str) -> str:
    return f"--{flat_name(field).replace('_', '-')}"
