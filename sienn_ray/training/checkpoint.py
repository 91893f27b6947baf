"""What a run must keep to go on where it was: adapter, optimizer, schedule, random state and history."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_STATE = "state.json"
_TENSORS = "trainer_state.pt"


@dataclass(frozen=True)
class EpochRecord:
    """Losses after one epoch; epoch 0 is the base model before the first step."""

    epoch: int
    train_loss: float | None
    eval_loss: float | None


@dataclass
class RunState:
    """How far a run has come."""

    epochs_done: int = 0
    steps_done: int = 0
    tokens_done: int = 0
    train_seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)


def save(folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, scheduler: Any, state: RunState) -> None:
    """Write a checkpoint to a local folder."""
    # Without this flag PEFT asks the hub whether the base model's vocabulary has grown.
    model.save_pretrained(folder, save_embedding_layers=False)
    tensors = {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    torch.save(tensors, folder / _TENSORS)
    (folder / _STATE).write_text(json.dumps(asdict(state)))


def restore(folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, scheduler: Any) -> RunState:
    """Read a checkpoint back into model, optimizer and schedule."""
    set_peft_model_state_dict(model, load_file(folder / ADAPTER_WEIGHTS))
    tensors = torch.load(folder / _TENSORS, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(tensors["optimizer"])
    scheduler.load_state_dict(tensors["scheduler"])
    torch.set_rng_state(tensors["rng"])
    if tensors["cuda_rng"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda_rng"])
    return read_state(folder)


def read_state(folder: Path) -> RunState:
    """Read only how far the run had come."""
    fields = json.loads((folder / _STATE).read_text())
    history = [EpochRecord(**record) for record in fields.pop("history")]
    return RunState(**fields, history=history)
