"""Hyperparameters as fields of a request's body; limits and defaults are the training configuration's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.training.config import (
    LoraSettings,
    LrScheduler,
    Precision,
    Quantization,
    Sharding,
    TargetModules,
    TrainingConfig,
)

# By its name in a request, where `r` alone would say little.
_LORA_FIELDS = {"lora_r" if name == "r" else name: name for name in LoraSettings.model_fields}


def _as_in(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Default and limits of a field of the training configuration."""
    field = model.model_fields[name]
    bounds = ("ge", "gt", "le", "lt")
    limits = {bound: getattr(limit, bound) for limit in field.metadata for bound in bounds if hasattr(limit, bound)}
    return {"default": field.default, **limits}


def _training(name: str, description: str, *examples: Any) -> Any:
    """A field that the training configuration has under the same name."""
    return Field(**_as_in(TrainingConfig, name), description=description, examples=list(examples))


def _lora(name: str, description: str, *examples: Any, **more: Any) -> Any:
    """A field of the adapter's settings, by its name there."""
    return Field(**_as_in(LoraSettings, name), description=description, examples=list(examples), **more)


def _names_are_unique(schema: dict[str, Any]) -> None:
    """Say so in the schema of the target modules, too."""
    for kind in schema["oneOf"]:
        if kind["type"] == "array":
            kind["uniqueItems"] = True


class Hyperparameters(RequestBody):
    """How to fine-tune."""

    learning_rate: float = _training("learning_rate", "Peak learning rate.", 2e-4)
    num_epochs: int = _training("num_epochs", "Passes over the dataset.", 3)
    batch_size: int = _training("batch_size", "Rows in one forward pass, over all workers.", 4)
    max_length: int = _training("max_length", "Tokens in one row, prompt and completion; longer ones are cut.", 512)
    gradient_accumulation_steps: int = _training(
        "gradient_accumulation_steps", "Forward passes whose gradients make one optimizer step.", 1
    )
    warmup_ratio: float = _training(
        "warmup_ratio", "Share of the steps in which the learning rate rises to its peak.", 0.06
    )
    weight_decay: float = _training("weight_decay", "Decay of the adapter's weights (AdamW).", 0.0)
    lr_scheduler: LrScheduler = _training("lr_scheduler", "How the learning rate goes on after its rise.", "cosine")
    validation_split: float = _training(
        "validation_split", "Share of the rows held out for evaluation; not together with `validation_dataset_id`.", 0.1
    )
    eval_steps: int | None = _training(
        "eval_steps", "Optimizer steps between evaluations, beside those after each epoch; null is no others.", 50
    )
    early_stopping_patience: int | None = _training(
        "early_stopping_patience",
        "Evaluations without a better loss after which the run ends; null is never. Needs rows to evaluate on.",
        3,
    )
    max_train_time_s: float | None = _training(
        "max_train_time_s",
        "Seconds of training, evaluations included, after which the run ends with what it has learned; null is never.",
        3600.0,
    )
    num_workers: int | None = _training(
        "num_workers", "Ray Train workers; null is what the server is set to (SIENN_TRAINING_NUM_WORKERS).", None
    )
    min_workers: int | None = _training(
        "min_workers",
        "Workers that suffice when nodes are missing or get lost, `num_workers` at the most; null is as many as those.",
        1,
    )
    precision: Precision = _training(
        "precision", "Of the base model's products: `auto` is bfloat16 where the hardware is fast at it.", "auto"
    )
    quantization: Quantization | None = _training(
        "quantization", "`nf4` keeps the base model in 4 bits (QLoRA); not together with `sharding: always`.", None
    )
    gradient_checkpointing: bool | None = _training(
        "gradient_checkpointing", "Compute activations twice to save memory; null does where memory asks for it.", None
    )
    torch_compile: bool = _training(
        "torch_compile", "Compile the base model's layers; pays off in long runs only.", False
    )
    sharding: Sharding = _training(
        "sharding", "Share the base model out among the workers; `auto` does where it doesn't fit one GPU.", "auto"
    )
    dpo_beta: float = _training(
        "dpo_beta", "How close training on preferences stays to the base model (DPO); others ignore it.", 0.1
    )
    seed: int = _training("seed", "Seed of initial weights, order and dropout.", 42)
    lora_r: int = _lora("r", "Rank of the adapter's matrices.", 16)
    lora_alpha: int = _lora("lora_alpha", "The adapter counts `lora_alpha / lora_r` times.", 32)
    lora_dropout: float = _lora("lora_dropout", "Share of the adapter's inputs that are dropped in training.", 0.05)
    target_modules: TargetModules = _lora(
        "target_modules",
        "Ends of module names that get an adapter, or `all-linear`: every linear one but the output head.",
        "all-linear",
        ["q_proj", "v_proj"],
        json_schema_extra=_names_are_unique,
    )
    use_rslora: bool = _lora("use_rslora", "Have the adapter count `lora_alpha / sqrt(lora_r)` times (rsLoRA).", False)
    use_dora: bool = _lora("use_dora", "Learn magnitude and direction of the weights apart (DoRA).", False)
    loraplus_lr_ratio: float | None = _lora(
        "loraplus_lr_ratio", "Learning rate of the adapter's B over that of its A (LoRA+); null is 1.", 16.0
    )

    def config_for(self, base_model: str) -> TrainingConfig:
        """The same as the training program takes it.

        Raises:
            ValidationError: Values that are fine each don't go together.
        """
        own = TrainingConfig.model_fields.keys() & Hyperparameters.model_fields.keys()
        lora = LoraSettings(**{name: getattr(self, field) for field, name in _LORA_FIELDS.items()})
        return TrainingConfig(base_model=base_model, lora=lora, **self.model_dump(include=own))


def hyperparameters(config: TrainingConfig) -> dict[str, Any]:
    """A job's configuration under the request's field names."""
    lora = config.lora.model_dump(mode="json")
    own = TrainingConfig.model_fields.keys() & Hyperparameters.model_fields.keys()
    return {
        **config.model_dump(mode="json", include=own),
        **{field: lora[name] for field, name in _LORA_FIELDS.items()},
    }
