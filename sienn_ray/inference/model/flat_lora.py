"""An adapter's weights in all layers as one tensor, which comes to a GPU in one copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from sienn_ray.inference.model.lora_weights import FlatLora, LayerLora, LoraWeights
from sienn_ray.inference.transfers import pinned

# Ranks are rounded up to this, so that adapters of different ranks seldom ask for another layout.
R_STEP = 8
# Columns of a part are rounded up to this, since a GPU's products want 16 bytes aligned.
_COLUMN_STEP = 8


class FlatLayout:
    """The layers' columns in an adapter's tensor, (r, columns).

    Each of the r rows has a row of A, and a column of B, of every layer, so that an adapter of a smaller r is the first
    rows of a place.

    Args:
        shapes: (out, in) of each layer by its name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        self._shapes = dict(shapes)
        self._starts: dict[str, tuple[int, int, int]] = {}
        self.num_columns = 0
        self.num_outputs = 0
        for name, (out_size, in_size) in self._shapes.items():
            b_start = self.num_columns + _rounded(in_size)
            self._starts[name] = (self.num_columns, b_start, self.num_outputs)
            self.num_columns = b_start + _rounded(out_size)
            self.num_outputs += _rounded(out_size)

    def parts(self, weights: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """View a layer's A' (..., r, in) and B' (..., r, out) in (..., r, columns)."""
        (a_start, b_start, _), (out_size, in_size) = self._starts[name], self._shapes[name]
        return weights[..., a_start : a_start + in_size], weights[..., b_start : b_start + out_size]

    def gains(self, gains: torch.Tensor, name: str) -> torch.Tensor:
        """View a layer's gains, (..., out), in (..., outputs)."""
        start = self._starts[name][2]
        return gains[..., start : start + self._shapes[name][0]]


def flat_lora(weights: LoraWeights, layout: FlatLayout, dtype: torch.dtype) -> FlatLora:
    """Lay out an adapter's weights in one tensor."""
    r = -(-weights.max_r // R_STEP) * R_STEP
    flat = torch.zeros((r, layout.num_columns), dtype=dtype)
    gains = None
    if any(layer.gain is not None for layer in weights.layers.values()):
        gains = torch.ones(layout.num_outputs, dtype=dtype)
    for name, layer in weights.layers.items():
        a, b = layout.parts(flat, name)
        a[: layer.a.shape[0]] = layer.a
        b[: layer.b.shape[1]] = layer.b.t()
        if gains is not None and layer.gain is not None:
            layout.gains(gains, name).copy_(layer.gain)
    return FlatLora(pinned(flat), None if gains is None else pinned(gains))


def flattened(weights: LoraWeights, layout: FlatLayout, dtype: torch.dtype) -> LoraWeights:
    """Return an adapter whose weights are one page-locked tensor, and its layers views of that."""
    flat = flat_lora(weights, layout, dtype)
    layers = {}
    for name, layer in weights.layers.items():
        a, b = layout.parts(flat.weights, name)
        gain = None if layer.gain is None or flat.gains is None else layout.gains(flat.gains, name)
        layers[name] = LayerLora(a[: layer.a.shape[0]], b[: layer.b.shape[1]].t(), gain)
    return replace(weights, layers=layers, flat=flat)


def _rounded(size: int) -> int:
    return -(-size // _COLUMN_STEP) * _COLUMN_STEP
