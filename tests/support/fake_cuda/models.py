"""Base models on the fake device, by their configuration."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel


def random_model(
    config: PretrainedConfig, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> PreTrainedModel:
    """Make a model of a configuration; within `fake_cuda` it takes no memory, whatever its size."""
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()
