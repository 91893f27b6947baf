"""The linear layers of a base model, replaced by those that take adapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.model.batched_lora import LoraLinear, LoraState
from sienn_ray.inference.model.linear_choice import LinearChoices


def replace_linear_layers(
    model: Any, state: LoraState, choices: LinearChoices | None
) -> Iterator[tuple[str, LoraLinear]]:
    """Replace every linear layer but the output head, which PEFT's `all-linear` leaves out as well."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
    for name in names:
        parent, _, own = name.rpartition(".")
        # Nothing else may hold the module, whose weight is there twice until it goes.
        layer = LoraLinear(model.get_submodule(name), state, choices)
        setattr(model.get_submodule(parent), own, layer)
        yield name, layer
