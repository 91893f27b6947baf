"""Checkpoints: the adapter, optimizer, position and history that a run goes on with.

Random state and learning rate needn't be kept: both follow from the number of a step, see `seed_step`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from sienn_ray.training.checkpoint_files import ADAPTER_WEIGHTS, BEST_WEIGHTS, START_WEIGHTS
from sienn_ray.training.run_state import RunState, read_state, write_state

_TENSORS = "trainer_state.pt"

Weights = dict[str, torch.Tensor]


def adapter_weights(adapter: PeftModel) -> Weights:
    """Copy the adapter's weights, by PEFT's names, to the CPU."""
    # Without this flag PEFT asks the hub whether the base model's vocabulary has grown.
    weights: Weights = get_peft_model_state_dict(adapter, save_embedding_layers=False)
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()}


def save(
    folder: Path,
    adapter: PeftModel,
    weights: Weights,
    best_weights: Weights | None,
    optimizer_state: dict[str, Any],
    state: RunState,
    start_weights: Weights | None = None,
) -> None:
    """Write a checkpoint to a local folder.

    Args:
        folder: Where to.
        adapter: For its configuration.
        weights: The adapter's, by PEFT's names.
        best_weights: Those of the best evaluation, if they are others.
        optimizer_state: `state_dict` of the optimizer.
        state: How far the run has come.
        start_weights: Those of the adapter that the run starts from, if there is one; a run goes on with them although
            the job that has made them may be gone by then.
    """
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    if best_weights is not None:
        save_file(best_weights, folder / BEST_WEIGHTS, metadata={"format": "pt"})
    if start_weights is not None:
        save_file(start_weights, folder / START_WEIGHTS, metadata={"format": "pt"})
    config = adapter.peft_config["default"]
    was_inference = config.inference_mode
    config.inference_mode = True  # as PEFT itself saves it
    config.save_pretrained(str(folder))
    config.inference_mode = was_inference
    torch.save(optimizer_state, folder / _TENSORS)
    write_state(folder, state)


@dataclass(frozen=True)
class Restored:
    """Contents of a checkpoint beside the weights that were put into the model."""

    state: RunState
    best_weights: Weights | None
    optimizer_state: dict[str, Any]


def restore(folder: Path, adapter: PeftModel) -> Restored:
    """Read a checkpoint, and put its weights into the adapter."""
    set_peft_model_state_dict(adapter, load_file(folder / ADAPTER_WEIGHTS))
    optimizer_state = torch.load(folder / _TENSORS, map_location="cpu", weights_only=True)
    best = folder / BEST_WEIGHTS
    return Restored(
        read_state(folder),
        load_file(best) if best.is_file() else None,
        optimizer_state,
    )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed what is random in a step (dropout) by the step itself, so that a resumed run meets the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank)
