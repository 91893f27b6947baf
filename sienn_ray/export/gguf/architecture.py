"""GGUF's metadata of a model: its architecture's name there, its numbers, and the names of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

from sienn_ray.errors import ExportError
from sienn_ray.export.gguf.ggml import Array

if TYPE_CHECKING:
    import torch

# By transformers' name: the name in GGUF, and whether llama.cpp wants the rows of queries and keys in another order.
_ARCHITECTURES = {
    "LlamaForCausalLM": (gguf.MODEL_ARCH.LLAMA, True),
    "MistralForCausalLM": (gguf.MODEL_ARCH.LLAMA, True),
    "Qwen2ForCausalLM": (gguf.MODEL_ARCH.QWEN2, False),
    "Qwen3ForCausalLM": (gguf.MODEL_ARCH.QWEN3, False),
}
_SUFFIXES = (".weight", ".bias")
_HEAD = "lm_head.weight"
_ROPE_FACTORS = "rope_freqs.weight"
_YARN = {
    "extrapolation_factor": "yarn_ext_factor",
    "attention_factor": "yarn_attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}


@dataclass(frozen=True)
class GgufArchitecture:
    """One base model, as GGUF sees it.

    Args:
        config: transformers' configuration.
        arch: GGUF's name of its architecture.
        is_interleaved: Whether queries and keys rotate neighbouring values there, instead of the halves of a head.
    """

    config: Any
    arch: gguf.MODEL_ARCH
    is_interleaved: bool

    @classmethod
    def of(cls, base_folder: Path) -> GgufArchitecture:
        """The architecture of the base model in a folder.

        Raises:
            ExportError: GGUF isn't written for it here.
        """
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(base_folder, trust_remote_code=False, local_files_only=True)  # nosec B615 # a local folder
        name = next(iter(config.architectures or []), "unknown")
        if name not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise ExportError(f"GGUF is written for {known}; this base model is a {name}. Export it as huggingface")
        if config.hidden_act != "silu":
            raise ExportError(f"llama.cpp runs {name} with silu; this base model has hidden_act={config.hidden_act}")
        arch, is_interleaved = _ARCHITECTURES[name]
        result = cls(config, arch, is_interleaved)
        result._check_rope()
        return result

    @property
    def name(self) -> str:
        """GGUF's name of the architecture, which begins its keys."""
        return str(gguf.MODEL_ARCH_NAMES[self.arch])

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return int(self.config.num_hidden_layers)

    @property
    def head_size(self) -> int:
        """Values of one attention head."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def context_length(self) -> int:
        """Tokens that the model sees at once. llama.cpp has no sliding window here, so the window is the limit."""
        window = getattr(self.config, "sliding_window", None)
        if window is None or not getattr(self.config, "use_sliding_window", True):
            return int(self.config.max_position_embeddings)
        return int(min(window, self.config.max_position_embeddings))

    def add_numbers(self, writer: gguf.GGUFWriter) -> None:
        """Write the sizes of the model."""
        config = self.config
        writer.add_block_count(self.num_layers)
        writer.add_context_length(self.context_length)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(self.head_size)
        writer.add_value_length(self.head_size)
        writer.add_rope_dimension_count(self.head_size)
        writer.add_vocab_size(config.vocab_size)
        self._add_rope(writer)

    @property
    def _rope(self) -> Mapping[str, Any]:
        parameters: Mapping[str, Any] = self.config.rope_parameters
        return parameters

    def _check_rope(self) -> None:
        kind = self._rope.get("rope_type", "default")
        if kind not in {"default", "linear", "yarn", "llama3"}:
            raise ExportError(f"positions of type '{kind}' have no counterpart in GGUF here; export as huggingface")

    def _add_rope(self, writer: gguf.GGUFWriter) -> None:
        rope = self._rope
        writer.add_rope_freq_base(rope["rope_theta"])
        kind = rope.get("rope_type", "default")
        if kind in {"linear", "yarn"}:
            writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
            writer.add_rope_scaling_factor(rope["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
            for name, key in _YARN.items():
                if rope.get(name) is not None:
                    getattr(writer, f"add_rope_scaling_{key}")(rope[name])

    def extra_tensors(self) -> dict[str, Array]:
        """Tensors that the files don't have: Llama 3's factors of the rotation's frequencies.

        Wavelengths above the low limit are stretched by the whole factor, those below the high one not at all, and
        those between by a mean of both (Llama 3.1's reference implementation, `apply_scaling`).
        """
        rope = self._rope
        if rope.get("rope_type") != "llama3":
            return {}
        size, factor = self.head_size, float(rope["factor"])
        low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        context = float(rope["original_max_position_embeddings"])
        wavelengths = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, size, 2) / size)
        share = np.clip((context / wavelengths - low) / (high - low), 0.0, 1.0)
        return {_ROPE_FACTORS: (1 / ((1 - share) / factor + share)).astype(np.float32)}

    def tensor_name(self, name: str) -> str | None:
        """GGUF's name of a tensor; None for one that isn't written, since another one has its weight.

        Raises:
            ExportError: GGUF has no name for it.
        """
        if name == _HEAD and self.config.tie_word_embeddings:
            return None
        found = gguf.get_tensor_name_map(self.arch, self.num_layers).get_name(name, try_suffixes=_SUFFIXES)
        if found is None:
            raise ExportError(f"GGUF has no name for the tensor '{name}' of {self.name}; export as huggingface")
        return str(found)

    def rows_in_order(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor with its rows as llama.cpp wants them.

        transformers rotates value i of a head together with value i + size / 2, llama.cpp's `llama` with its neighbour.

        Args:
            name: The tensor's name in transformers, or its layer's.
            tensor: (out, ...).
        """
        if not self.is_interleaved:
            return tensor
        if ".q_proj" in name:
            num_heads = int(self.config.num_attention_heads)
        elif ".k_proj" in name:
            num_heads = int(self.config.num_key_value_heads)
        else:
            return tensor
        halves = tensor.reshape(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)
