"""Put a LoRA adapter on a base model, and its parameters into an optimizer."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.optimizers import create_loraplus_optimizer
from transformers.pytorch_utils import Conv1D

from sienn_ray.training.adapter import fused_lora
from sienn_ray.training.adapter.target_modules import check_target_modules
from sienn_ray.training.config import ALL_LINEAR, TrainingConfig


def add_adapter(model: Any, config: TrainingConfig) -> PeftModel:
    """Wrap a base model with a new LoRA adapter that names its base model by id, not by a local folder.

    The adapter's weights are float32, whatever the base model's are.

    Raises:
        TrainingError: The base model has no such target modules.
    """
    targets = config.lora.target_modules
    if targets != ALL_LINEAR:
        check_target_modules(model, targets, config.base_model)
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules=targets if targets == ALL_LINEAR else list(targets),
        use_rslora=config.lora.use_rslora,
        use_dora=config.lora.use_dora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    if is_fused(config):
        lora._register_custom_module(fused_lora.LAYERS)  # documented in PEFT's guide to custom models
    if config.quantization is not None:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    adapter = get_peft_model(model, lora)
    written = adapter.peft_config["default"]
    written.base_model_name_or_path, written.revision = config.base_model, config.base_model_revision
    return adapter


def is_fused(config: TrainingConfig) -> bool:
    """Return whether the adapter's layers are plain enough for `fused_lora`."""
    return not (config.lora.use_dora or config.lora.lora_dropout or config.quantization)


def make_optimizer(adapter: PeftModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW over the adapter's parameters; B learns faster than A where LoRA+ is asked for."""
    ratio = config.lora.loraplus_lr_ratio
    if ratio is not None:
        optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
            adapter,
            torch.optim.AdamW,
            lr=config.learning_rate,
            loraplus_lr_ratio=ratio,
            weight_decay=config.weight_decay,
        )
        return optimizer
    return torch.optim.AdamW(trainable(adapter), lr=config.learning_rate, weight_decay=config.weight_decay)


def trainable(adapter: PeftModel) -> list[torch.nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in adapter.parameters() if parameter.requires_grad]
