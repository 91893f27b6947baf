"""Names of a checkpoint's files, and the adapter among them; without PyTorch, which takes seconds to import."""

from __future__ import annotations

import shutil
from pathlib import Path

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
# The adapter with the lowest evaluation loss so far, where that isn't the current one.
BEST_WEIGHTS = "best_adapter_model.safetensors"
# The adapter that the run starts from, where it isn't the base model: what its preferences are relative to.
START_WEIGHTS = "start_adapter_model.safetensors"
# Beside the weights of a start adapter in storage: where it was taken from.
START_SOURCE = "start_source.json"


def copy_best_adapter(folder: Path, target: Path) -> None:
    """Copy the adapter with the lowest evaluation loss, or the last one where nothing was evaluated."""
    best = folder / BEST_WEIGHTS
    shutil.copyfile(best if best.is_file() else folder / ADAPTER_WEIGHTS, target / ADAPTER_WEIGHTS)
    shutil.copyfile(folder / ADAPTER_CONFIG, target / ADAPTER_CONFIG)
