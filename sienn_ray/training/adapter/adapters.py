"""Put a LoRA adapter on a base model, and its parameters into an optimizer."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers.pytorch_utils import Conv1D

from sienn_ray.training.adapter import fused_lora
from sienn_ray.training.adapter.half_lora import HALF_TYPES, AdapterCopies
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
    if is_fused(config, model.device):
        lora._register_custom_module(_fused_layers(config))  # documented in PEFT's guide to custom models
    # PEFT would prepare a quantized model by making float32 of all else in it: twice the memory of embeddings and head,
    # and a head that is cast again for each piece of the loss.
    adapter = get_peft_model(model, lora)
    written = adapter.peft_config["default"]
    written.base_model_name_or_path, written.revision = config.base_model, config.base_model_revision
    return adapter


def is_fused(config: TrainingConfig, device: torch.device) -> bool:
    """Return whether the adapter's layers are plain enough for `fused_lora`, which on a GPU has dropout too."""
    has_dropout = config.lora.lora_dropout > 0 and device.type != "cuda"
    return not (config.lora.use_dora or has_dropout)


def _fused_layers(config: TrainingConfig) -> dict[type[torch.nn.Module], type[torch.nn.Module]]:
    if config.quantization is None:
        return fused_lora.LAYERS
    from sienn_ray.training.adapter import fused_nf4  # needs bitsandbytes, which is an extra

    return {**fused_nf4.LAYERS, **fused_lora.LAYERS}  # the first that a layer is an instance of


def make_optimizer(adapter: PeftModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW over the adapter's parameters; B learns faster than A where LoRA+ is asked for.

    On a GPU it is one kernel, and the copies that layers compute with follow each step.
    """
    parameters = trainable(adapter)
    is_on_gpu = all(parameter.device.type == "cuda" for parameter in parameters)
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if is_on_gpu:
        options["fused"] = True
    ratio = config.lora.loraplus_lr_ratio
    optimizer: torch.optim.Optimizer
    if ratio is None:
        optimizer = torch.optim.AdamW(parameters, **options)
    else:
        optimizer = create_loraplus_optimizer(adapter, torch.optim.AdamW, loraplus_lr_ratio=ratio, **options)
    optimizer.register_load_state_dict_pre_hook(_with_own_kernel)
    if is_on_gpu:
        copy_each_step(adapter, optimizer)
    return optimizer


def _with_own_kernel(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Leave it to the device that goes on with a checkpoint how AdamW is computed, not to the one that wrote it."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    return {**state, "param_groups": [{**theirs, "fused": ours["fused"]} for theirs, ours in groups]}


def copy_each_step(adapter: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Have fused layers in half precision compute with copies of A and B that are made once a step."""
    layers = [
        module
        for module in adapter.modules()
        if isinstance(module, fused_lora.FusedLora) and module.compute_dtype in HALF_TYPES
    ]
    if not layers:
        return
    factors = [factor for layer in layers for factor in layer.factors]
    copies = AdapterCopies(factors, layers[0].compute_dtype)
    for layer, a, b in zip(layers, copies.copies[::2], copies.copies[1::2], strict=True):
        layer.copies = (a, b)
    optimizer.register_step_post_hook(copies.refresh)


def trainable(adapter: PeftModel) -> list[torch.nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in adapter.parameters() if parameter.requires_grad]
