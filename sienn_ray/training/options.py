"""Hyperparameters as options of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.training.config import ALL_LINEAR, LoraSettings, TrainingConfig


def _module_names(text: str) -> str | tuple[str, ...]:
    return text if text == ALL_LINEAR else tuple(text.split(","))


_CONFIG: dict[str, Callable[[str], Any]] = {
    "learning_rate": float,
    "num_epochs": int,
    "batch_size": int,
    "max_length": int,
    "gradient_accumulation_steps": int,
    "warmup_ratio": float,
    "weight_decay": float,
    "lr_scheduler": str,
    "max_grad_norm": float,
    "validation_split": float,
    "num_workers": int,
    "seed": int,
}
# By their names on the command line, where `r` alone would say little.
_LORA: dict[str, tuple[str, Callable[[str], Any]]] = {
    "lora_r": ("r", int),
    "lora_alpha": ("lora_alpha", int),
    "lora_dropout": ("lora_dropout", float),
    "target_modules": ("target_modules", _module_names),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each hyperparameter; the limits stay with `TrainingConfig`."""
    for name, kind in _CONFIG.items():
        _add(parser, name, kind, TrainingConfig.model_fields[name])
    for name, (field, kind) in _LORA.items():
        _add(parser, name, kind, LoraSettings.model_fields[field])


def config_of(base_model: str, arguments: argparse.Namespace) -> TrainingConfig:
    """What the options ask for.

    Raises:
        TrainingError: A value is outside its limits.
    """
    try:
        lora = LoraSettings(**{field: getattr(arguments, name) for name, (field, _) in _LORA.items()})
        return TrainingConfig(base_model=base_model, lora=lora, **{name: getattr(arguments, name) for name in _CONFIG})
    except ValidationError as error:
        raise TrainingError(_in_words(error), FailureReason.INVALID_HYPERPARAMETERS) from error


def _add(parser: argparse.ArgumentParser, name: str, kind: Callable[[str], Any], field: Any) -> None:
    words = f"{field.description or ''} Default {field.default}.".strip()
    parser.add_argument(_flag(name), type=kind, default=field.default, help=words.replace("%", "%%"))


def _in_words(error: ValidationError) -> str:
    """Every fault with its option and value."""
    names = {field: name for name, (field, _) in _LORA.items()}
    faults = (
        f"{_flag(names.get(str(fault['loc'][0]), str(fault['loc'][0])))} {fault['input']!r}: {fault['msg']}"
        for fault in error.errors()
    )
    return "; ".join(faults)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
