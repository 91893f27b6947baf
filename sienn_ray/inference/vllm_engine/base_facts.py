"""A base model's configuration and the shapes of its linear layers, read without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from sienn_ray.context_length import context_tokens_of
from sienn_ray.inference.sampling.sampler import eos_token_ids

_VALUE_BYTES = 2  # bfloat16 and float16


@dataclass(frozen=True)
class LayerShape:
    """A linear layer without its weight.

    Args:
        shape: (out, in).
    """

    shape: tuple[int, int]

    def matrix(self) -> torch.Tensor:
        """Refuse: only DoRA asks for the weight, and vLLM can't serve that."""
        raise NotImplementedError


@dataclass(frozen=True)
class BaseFacts:
    """Facts of a base model whose weights are in other processes.

    Args:
        context_tokens: Tokens that it reads; None where its configuration names none.
        eos: Ids of tokens that end any answer.
        layers: Its linear layers by name, but for the head.
        num_parameters: All numbers of its weights.
    """

    context_tokens: int | None
    eos: frozenset[int]
    layers: Mapping[str, LayerShape]
    num_parameters: int

    @classmethod
    def of(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> BaseFacts:
        """Read them from a base model's folder; its layers are built on PyTorch's meta device."""
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)  # nosec B615 # a local folder
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        generation = model.generation_config
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)  # nosec B615 # a local folder
        head = model.get_output_embeddings()
        return cls(
            context_tokens_of(config.to_dict()),
            frozenset(eos_token_ids(generation.eos_token_id, tokenizer.eos_token_id)),
            {
                name: LayerShape((module.out_features, module.in_features))
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear) and module is not head
            },
            sum(parameter.numel() for parameter in model.parameters()),
        )

    @property
    def rank_bytes(self) -> int:
        """Bytes of an adapter on all layers for each unit of its rank, in two bytes a number."""
        return sum(_VALUE_BYTES * sum(layer.shape) for layer in self.layers.values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, in two bytes a number; where they are quantized they take less."""
        return _VALUE_BYTES * self.num_parameters
