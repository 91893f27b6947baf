"""A base model in 4 bits on the fake device, whose weights bitsandbytes couldn't quantize there."""

from __future__ import annotations

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn.modules import Linear4bit
from transformers import PreTrainedModel

_BLOCK = 64  # weights that share a scale
_NESTED_BLOCK = 256  # scales that share one


def quantize(model: PreTrainedModel) -> PreTrainedModel:
    """Replace linear layers but the head, as transformers does, by ones whose weights have the sizes of NF4's."""
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and module is not head:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _quantized(module))
    return model


def _quantized(layer: torch.nn.Linear) -> Linear4bit:
    weight, dtype = layer.weight, layer.weight.dtype
    num_scales = -(-weight.numel() // _BLOCK)
    state = QuantState(  # type: ignore[no-untyped-call]
        absmax=weight.new_empty(num_scales, dtype=torch.uint8),
        shape=weight.shape,
        code=weight.new_empty(16, dtype=torch.float32),
        blocksize=_BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=weight.new_empty((), dtype=torch.float32),
        state2=QuantState(  # type: ignore[no-untyped-call]
            absmax=weight.new_empty(-(-num_scales // _NESTED_BLOCK), dtype=torch.float32),
            code=weight.new_empty(256, dtype=torch.float32),
            blocksize=_NESTED_BLOCK,
            dtype=torch.float32,
        ),
    )
    found = Linear4bit(  # type: ignore[no-untyped-call]
        2, 2, bias=False, compute_dtype=dtype, quant_type="nf4", device="cpu"
    )
    found.in_features, found.out_features = layer.in_features, layer.out_features
    # Not of bitsandbytes' own class, which can't be a fake as well.
    packed = torch.nn.Parameter(weight.new_empty((weight.numel() // 2, 1), dtype=torch.uint8), requires_grad=False)
    found.weight, found.bias = packed, layer.bias
    for name, value in {"quant_state": state, "quant_type": "nf4", "compress_statistics": True}.items():
        setattr(packed, name, value)
    return found
