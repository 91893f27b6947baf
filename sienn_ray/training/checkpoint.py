"""What a run must keep to go on where it was: adapter, optimizer, position and history.

Random state and learning rate needn't be kept: both follow from the number of a step, see `seed_step`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
# The adapter with the lowest evaluation loss so far, where that isn't the current one.
_BEST_WEIGHTS = "best_adapter_model.safetensors"
_STATE = "state.json"
_TENSORS = "trainer_state.pt"

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EvalRecord:
    """Losses at one evaluation.

    Args:
        epoch: Epoch that it was in; 0 is the base model before the first step.
        step: Optimizer steps that were done.
        train_loss: Mean since the epoch began; None before the first step.
        eval_loss: None where nothing is evaluated on.
    """

    epoch: int
    train_loss: float | None
    eval_loss: float | None
    step: int = 0


@dataclass
class RunState:
    """How far a run has come.

    Args:
        steps_done: Optimizer steps.
        tokens_done: Tokens of their rows.
        train_seconds: Seconds of training.
        elapsed_s: The same with evaluations.
        epoch_loss_sum: Losses since the epoch began, summed over `epoch_weight` completion tokens or pairs.
        epoch_weight: What that sum is to be divided by.
        num_dropped_rows: Rows of the first epoch without room for an answer, on all workers.
        best_eval_loss: Lowest evaluation loss after the first step.
        best_step: When that was.
        best_epoch: Epoch of that step.
        evals_without_gain: Evaluations since.
        micro_batch_rows: What memory suffices for; None until it was too small.
        stop_reason: Why the run ended before its last epoch, if it did.
        history: One record for each evaluation and each epoch.
    """

    steps_done: int = 0
    tokens_done: int = 0
    train_seconds: float = 0.0
    elapsed_s: float = 0.0
    epoch_loss_sum: float = 0.0
    epoch_weight: int = 0
    num_dropped_rows: int = 0
    best_eval_loss: float | None = None
    best_step: int | None = None
    best_epoch: int | None = None
    evals_without_gain: int = 0
    micro_batch_rows: int | None = None
    is_done: bool = False
    stop_reason: str | None = None
    history: list[EvalRecord] = field(default_factory=list)


def save(
    folder: Path,
    adapter: PeftModel,
    weights: Weights,
    best_weights: Weights | None,
    optimizer_state: dict[str, Any],
    state: RunState,
) -> None:
    """Write a checkpoint to a local folder.

    Args:
        folder: Where to.
        adapter: For its configuration.
        weights: The adapter's, whole and by PEFT's names.
        best_weights: Those of the best evaluation, if they are others.
        optimizer_state: `state_dict` of the optimizer, whole.
        state: How far the run has come.
    """
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    if best_weights is not None:
        save_file(best_weights, folder / _BEST_WEIGHTS, metadata={"format": "pt"})
    config = adapter.peft_config["default"]
    was_inference = config.inference_mode
    config.inference_mode = True  # as PEFT itself saves it
    config.save_pretrained(str(folder))
    config.inference_mode = was_inference
    torch.save(optimizer_state, folder / _TENSORS)
    (folder / _STATE).write_text(json.dumps(asdict(state)))


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds beside the weights that were put into the model."""

    state: RunState
    best_weights: Weights | None
    optimizer_state: dict[str, Any]


def restore(folder: Path, adapter: PeftModel) -> Restored:
    """Read a checkpoint, and put its weights into the adapter."""
    set_peft_model_state_dict(adapter, load_file(folder / ADAPTER_WEIGHTS))
    optimizer_state = torch.load(folder / _TENSORS, map_location="cpu", weights_only=True)
    best = folder / _BEST_WEIGHTS
    return Restored(
        read_state(folder),
        load_file(best) if best.is_file() else None,
        optimizer_state,
    )


def read_state(folder: Path) -> RunState:
    """Read only how far the run had come."""
    fields = json.loads((folder / _STATE).read_text())
    history = [EvalRecord(**record) for record in fields.pop("history")]
    return RunState(**fields, history=history)


def copy_best_adapter(folder: Path, target: Path) -> None:
    """Copy the adapter with the lowest evaluation loss, or the last one where nothing was evaluated."""
    best = folder / _BEST_WEIGHTS
    shutil.copyfile(best if best.is_file() else folder / ADAPTER_WEIGHTS, target / ADAPTER_WEIGHTS)
    shutil.copyfile(folder / ADAPTER_CONFIG, target / ADAPTER_CONFIG)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed what is random in a step (dropout) by the step itself, so that a resumed run meets the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank)
