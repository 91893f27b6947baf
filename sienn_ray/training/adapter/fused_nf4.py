"""The fused LoRA layer over weights in 4 bits; bitsandbytes has to be there.

PEFT's layer casts what comes in to float32 for the adapter and back for its products, and automatic casts do so for the
output head as well. Here the products are those of `fused_lora`, over a weight that is made whole once forward and once
backward (Dettmers et al. 2023, arXiv:2305.14314, equation 5).
"""

from __future__ import annotations

import torch
from bitsandbytes.nn.modules import Linear4bit as QuantizedLinear
from peft.tuners.lora.bnb import Linear4bit

from sienn_ray.training.adapter.frozen_weight import QuantizedWeight
from sienn_ray.training.adapter.fused_lora import FusedLora


class FusedNf4Linear(FusedLora, Linear4bit):  # type: ignore[misc]
    """PEFT's LoRA layer over a weight in 4 bits, with the forward pass of `FusedLora`."""

    def frozen_weight(self) -> QuantizedWeight:
        """See `FusedLora.frozen_weight`."""
        return QuantizedWeight(self.get_base_layer())

    @property
    def compute_dtype(self) -> torch.dtype:
        """See `FusedLora.compute_dtype`."""
        dtype: torch.dtype = self.get_base_layer().weight.quant_state.dtype
        return dtype


LAYERS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {QuantizedLinear: FusedNf4Linear}
