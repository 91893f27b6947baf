"""Write a base model and adapters as llama.cpp reads them, with the `gguf` package alone.

The base model comes from a GGUF of any type, so that its vocabulary and settings are taken over as they are; its
weights are the very numbers that transformers gets from that file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, quants
from safetensors.numpy import load_file

TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
PROJECTIONS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_TENSOR = re.compile(r"\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight$")


def convert_base(source: Path, target: Path, weights: str) -> None:
    """Write another type of weights. Vectors stay float32, as llama.cpp wants them."""
    kind, file_type = TYPES[weights]
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in {"general.architecture", "general.file_type"}:
            _copy(writer, field)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(size) for size in reversed(tensor.shape)])
        used = GGMLQuantizationType.F32 if values.ndim == 1 else kind
        writer.add_tensor(tensor.name, quants.quantize(values, used), raw_dtype=used)
    _write(writer)


def _copy(writer: GGUFWriter, field: Any) -> None:
    if field.name == "general.quantization_version":
        return
    kind = field.types[0]
    sub_type = field.types[-1] if kind is GGUFValueType.ARRAY else None
    writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_type)


def convert_adapter(folder: Path, target: Path, num_heads: int, num_kv_heads: int) -> None:
    """Write an adapter of PEFT's for the Llama architecture."""
    writer = GGUFWriter(target, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", json.loads((folder / "adapter_config.json").read_text())["lora_alpha"])
    for name, values in load_file(folder / "adapter_model.safetensors").items():
        found = _TENSOR.search(name)
        if found is None:
            raise ValueError(f"{folder} has a tensor {name}, which isn't a LoRA matrix of a projection")
        layer, projection, which = found.groups()
        if which == "B" and projection in {"q_proj", "k_proj"}:
            values = _permuted(values, num_heads if projection == "q_proj" else num_kv_heads)
        writer.add_tensor(f"blk.{layer}.{PROJECTIONS[projection]}.weight.lora_{which.lower()}", values)
    _write(writer)


def _permuted(values: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """Rows of queries and keys in the order of llama.cpp, which rotates neighbours where transformers rotates halves.

    Args:
        values: (heads x head size, columns).
        num_heads: Heads.
    """
    split = values.reshape(num_heads, 2, values.shape[0] // num_heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))


def _write(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
