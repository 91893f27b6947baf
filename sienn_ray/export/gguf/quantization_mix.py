"""The type of each tensor of a GGUF, by llama.cpp's rules (`llama_tensor_get_type`, src/llama-quant.cpp).

A K-quant's name says what most tensors have; those that matter more get more bits. Rules for mixtures of experts,
Falcon and 70B models are left out: models that they are for aren't converted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from sienn_ray.export.options import GgufQuantization

# What most tensors have.
MOST: dict[GgufQuantization, Type] = {
    GgufQuantization.F32: Type.F32,
    GgufQuantization.F16: Type.F16,
    GgufQuantization.BF16: Type.BF16,
    GgufQuantization.Q8_0: Type.Q8_0,
    GgufQuantization.Q6_K: Type.Q6_K,
    GgufQuantization.Q5_K_M: Type.Q5_K,
    GgufQuantization.Q5_K_S: Type.Q5_K,
    GgufQuantization.Q4_K_M: Type.Q4_K,
    GgufQuantization.Q4_K_S: Type.Q4_K,
    GgufQuantization.Q3_K_M: Type.Q3_K,
    GgufQuantization.Q2_K: Type.Q2_K,
}
# Where rows don't come in whole blocks of a K-quant's 256 values.
_FALLBACKS = {
    Type.Q2_K: Type.IQ4_NL,
    Type.Q3_K: Type.IQ4_NL,
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}


@dataclass(frozen=True)
class ModelShape:
    """The facts of a model that the rules look at.

    Args:
        num_layers: Decoder layers.
        group: Query heads for each key head.
        has_output: There is an output head apart from the embeddings.
    """

    num_layers: int
    group: int
    has_output: bool


def tensor_type(quantization: GgufQuantization, name: str, layer: int, row_size: int, shape: ModelShape) -> Type:
    """The type of a matrix; vectors stay in float32.

    Args:
        quantization: What was asked for.
        name: The tensor's, as GGUF has it, such as "blk.3.attn_v.weight".
        layer: Its layer.
        row_size: Values in a row.
        shape: The model's.
    """
    most = MOST[quantization]
    if most in (Type.F32, Type.F16, Type.BF16):
        return most
    is_head = name == "output.weight" or (name == "token_embd.weight" and not shape.has_output)
    if is_head:
        if row_size % _block(most):
            return _fitting(Type.Q8_0, row_size)
        chosen = most if most is Type.Q8_0 else Type.Q6_K
    else:
        chosen = _by_place(quantization, name, layer, shape)
    return _fitting(chosen, row_size)


def _by_place(quantization: GgufQuantization, name: str, layer: int, shape: ModelShape) -> Type:
    n = shape.num_layers
    most = MOST[quantization]
    more = _matters_more(layer, n)
    if "attn_v" in name:
        by_name = {
            GgufQuantization.Q2_K: Type.Q4_K if shape.group >= 4 else Type.Q3_K,
            GgufQuantization.Q3_K_M: Type.Q5_K if layer < 2 else Type.Q4_K,
            GgufQuantization.Q4_K_S: Type.Q5_K if layer < 4 else most,
            GgufQuantization.Q4_K_M: Type.Q6_K if more else most,
            GgufQuantization.Q5_K_M: Type.Q6_K if more else most,
        }
    elif "ffn_down" in name:
        by_name = {
            GgufQuantization.Q2_K: Type.Q3_K,
            GgufQuantization.Q3_K_M: Type.Q5_K if layer < n // 16 else Type.Q4_K,
            GgufQuantization.Q4_K_S: Type.Q5_K if layer < n // 8 else most,
            GgufQuantization.Q4_K_M: Type.Q6_K if more else most,
            GgufQuantization.Q5_K_M: Type.Q6_K if more else most,
        }
    elif "attn_output" in name:
        by_name = {GgufQuantization.Q2_K: Type.Q3_K, GgufQuantization.Q3_K_M: Type.Q4_K}
    else:
        by_name = {}
    return by_name.get(quantization, most)


def _matters_more(layer: int, num_layers: int) -> bool:
    """The first eighth, the last one, and every third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _block(kind: Type) -> int:
    return int(GGML_QUANT_SIZES[kind][0])


def _fitting(kind: Type, row_size: int) -> Type:
    if row_size % _block(kind):
        kind = _FALLBACKS.get(kind, Type.F16)
    return Type.F16 if row_size % _block(kind) else kind
