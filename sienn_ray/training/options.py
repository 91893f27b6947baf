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
    "min_workers": int,
    "eval_steps": int,
    "early_stopping_patience": int,
    "max_train_time_s": float,
    "precision": str,
    "quantization": str,
    "gradient_checkpointing": bool,
    "torch_compile": bool,
    "sharding": str,
    "dpo_beta": float,
    "seed": int,
}
# By their names on the command line, where `r` alone would say little.
_LORA: dict[str, tuple[str, Callable[[str], Any]]] = {
    "lora_r": ("r", int),
    "lora_alpha": ("lora_alpha", int),
    "lora_dropout": ("lora_dropout", float),
    "target_modules": ("target_modules", _module_names),
    "use_rslora": ("use_rslora", bool),
    "use_dora": ("use_dora", bool),
    "loraplus_lr_ratio": ("loraplus_lr_ratio", float),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each hyperparameter; the limits stay with `TrainingConfig`."""
    for name, kind in _CONFIG.items():
        _add(parser, name, kind, TrainingConfig.model_fields[name])
    for name, (field, kind) in _LORA.items():
        _add(parser, name, kind, LoraSettings.model_fields[field])


def config_of(base_model: str, arguments: argparse.Namespace) -> TrainingConfig:
    """What the options ask for.

    Args:
        base_model: Hub id.
        arguments: The options' values; a `validation_dataset` among them is something to evaluate on.

    Raises:
        TrainingError: A value is outside its limits, or doesn't go with another one.
    """
    try:
        lora = LoraSettings(**{field: getattr(arguments, name) for name, (field, _) in _LORA.items()})
        config = TrainingConfig(
            base_model=base_model, lora=lora, **{name: getattr(arguments, name) for name in _CONFIG}
        )
    except ValidationError as error:
        raise TrainingError(_in_words(error), FailureReason.INVALID_HYPERPARAMETERS) from error
    _check_early_stopping(config, has_validation_dataset=bool(vars(arguments).get("validation_dataset")))
    return config


def _check_early_stopping(config: TrainingConfig, *, has_validation_dataset: bool) -> None:
    if config.early_stopping_patience is not None and config.validation_split == 0 and not has_validation_dataset:
        raise TrainingError(
            f"--early-stopping-patience {config.early_stopping_patience} needs rows to evaluate on, and "
            "--validation-split is 0; raise it, or name a --validation-dataset",
            FailureReason.INVALID_HYPERPARAMETERS,
        )


def _add(parser: argparse.ArgumentParser, name: str, kind: Callable[[str], Any], field: Any) -> None:
    words = f"{field.description or ''} Default {field.default}.".strip()
    how: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
    parser.add_argument(_flag(name), default=field.default, help=words.replace("%", "%%"), **how)


def _in_words(error: ValidationError) -> str:
    """Every fault with its option and value; one of several options together names them itself."""
    return "; ".join(_fault_in_words(fault) for fault in error.errors())


def _fault_in_words(fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    names = {field: name for name, (field, _) in _LORA.items()}
    field = str(fault["loc"][0])
    return f"{_flag(names.get(field, field))} {fault['input']!r}: {fault['msg']}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
