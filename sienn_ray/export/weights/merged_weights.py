"""A base model's tensors with an adapter merged into them, one at a time.

No more than one tensor is in memory: a model of any size is merged in the memory of its largest matrix.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sienn_ray.errors import ExportError
from sienn_ray.export.weights.adapter_reader import Adapter
from sienn_ray.export.weights.checkpoint_reader import CheckpointReader

if TYPE_CHECKING:
    import torch

_MAX_NAMED = 3


class MergedWeights:
    """The tensors of the merged model, under the names of the base model's files.

    Args:
        base_folder: The base model's folder.
        adapter: The adapter.

    Raises:
        ExportError: The adapter is for layers that the base model doesn't have.
    """

    def __init__(self, base_folder: Path, adapter: Adapter) -> None:
        base = CheckpointReader(base_folder)
        self._base = base
        self._adapter = adapter
        self._layer_of = {tensor: layer for layer in adapter.layers if (tensor := _tensor_of(layer, base))}
        self.specs = base.specs
        missing = sorted(set(adapter.layers) - set(self._layer_of.values()))
        if missing:
            more = " and more" if len(missing) > _MAX_NAMED else ""
            raise ExportError(
                f"the adapter has matrices for {', '.join(missing[:_MAX_NAMED])}{more}, which the base model's files "
                "don't have; a layer that shares its weight with another can't be merged"
            )

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in the type that the base model has it in."""
        weight = self._base.read(name)
        layer = self._layer_of.get(name)
        return weight if layer is None else self._adapter.merged(layer, weight)


def _tensor_of(layer: str, base: CheckpointReader) -> str | None:
    """The name of a layer's weight; some files leave out the name of the model within (such as `transformer.`)."""
    whole = f"{layer}.weight"
    return next((name for name in (whole, whole.partition(".")[2]) if name in base.specs), None)
