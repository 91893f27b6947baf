"""Memory that an export needs, from the sizes of the base model's matrices."""

from __future__ import annotations

import json
from pathlib import Path

from sienn_ray import catalog
from sienn_ray.export.options import ExportOptions
from sienn_ray.export.targets import target_of
from sienn_ray.settings import GIB, MIB, Settings

# Python with torch, transformers, PEFT and a tokenizer, measured without any weights.
_PROGRAM_BYTES = 700 * MIB
_FLOAT32_BYTES = 4
# For a base model that isn't on this machine yet.
_UNKNOWN_BYTES = 4 * GIB


def memory_need_bytes(base_model: str, options: ExportOptions, settings: Settings) -> int:
    """Bytes that a run needs at the most. The model itself never is in memory, only its largest matrix.

    Args:
        base_model: Hub id.
        options: The export's.
        settings: Where converted base models are.
    """
    num_copies = target_of(options.format).num_matrix_copies(options)
    if not num_copies:
        return _PROGRAM_BYTES
    config = _config_file(base_model, settings)
    if config is None:
        return _UNKNOWN_BYTES
    sizes = json.loads(config.read_text(encoding="utf-8"))
    hidden = int(sizes.get("hidden_size") or 0)
    largest = hidden * max(int(sizes.get("vocab_size") or 0), int(sizes.get("intermediate_size") or 0))
    return _PROGRAM_BYTES + num_copies * _FLOAT32_BYTES * largest if largest else _UNKNOWN_BYTES


def _config_file(base_model: str, settings: Settings) -> Path | None:
    snapshot = catalog.cached_snapshot(base_model)
    folders = [snapshot] if snapshot else [catalog.converted_folder(base_model, settings.models_dir)]
    return next((folder / "config.json" for folder in folders if (folder / "config.json").is_file()), None)
