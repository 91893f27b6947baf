"""Memory that an export needs, from the size of the base model's largest matrix."""

from __future__ import annotations

from sienn_ray.export.options import ExportOptions
from sienn_ray.export.targets import target_of
from sienn_ray.model_sizes import model_sizes
from sienn_ray.settings import GIB, MIB, Settings

# Python with torch, transformers, PEFT and a tokenizer, measured without any weights.
_PROGRAM_BYTES = 700 * MIB
_FLOAT32_BYTES = 4
# For a base model of which neither this machine nor the hub tells anything now.
_UNKNOWN_BYTES = 4 * GIB


def memory_need_bytes(base_model: str, options: ExportOptions, settings: Settings, revision: str | None = None) -> int:
    """Bytes that a run needs at the most. The model itself never is in memory, only its largest matrix.

    Args:
        base_model: Hub id.
        options: The export's.
        settings: Where converted base models are, and how long the hub is waited for.
        revision: The base model's commit; None is what is here.
    """
    num_copies = target_of(options.format).num_matrix_copies(options)
    if not num_copies:
        return _PROGRAM_BYTES
    sizes = model_sizes(base_model, settings, revision)
    return _UNKNOWN_BYTES if sizes is None else _PROGRAM_BYTES + num_copies * _FLOAT32_BYTES * sizes.largest
