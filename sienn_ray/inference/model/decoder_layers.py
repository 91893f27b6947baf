"""Decoder layers of the Llama family, computed in few calls.

A decoding step has few tokens, so that the calls between two products (views, transposes, module hooks, norms in six
operations) take a good part of its time. Here a layer's tokens keep their layout from one end to the other, and what is
the same for all layers is made once. The modules, and with them the adapters, are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sienn_ray.inference.model.paged_attention import PagedStep

# Classes whose attention and MLP compute what `PagedDecoderLayer` does; others may only look alike.
KNOWN_LAYERS = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"})


class PagedDecoderLayer(torch.nn.Module):
    """A layer that attends over the paged KV cache; in a forward pass without one, the model's own layer.

    Args:
        layer: The model's layer.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        attention, mlp = layer.self_attn, layer.mlp
        self._number = int(attention.layer_idx)
        self._head_size = int(attention.head_dim)
        self._group = int(attention.num_key_value_groups)
        self._scale = float(attention.scaling)
        self._window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
        self._norm = rms_norm(layer.input_layernorm)
        self._q, self._k, self._v = (each.forward for each in (attention.q_proj, attention.k_proj, attention.v_proj))
        self._o = attention.o_proj.forward
        self._q_norm, self._k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        self._mlp_norm = rms_norm(layer.post_attention_layernorm)
        self._gate, self._up, self._down = (each.forward for each in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self._activation = mlp.act_fn

    def forward(self, hidden_states: torch.Tensor, paged: PagedStep | None = None, **others: Any) -> torch.Tensor:
        """Compute the layer: (1, tokens, size) to (1, tokens, size)."""
        if paged is None:
            output: torch.Tensor = self.layer(hidden_states, **others)
            return output
        x = hidden_states[0]
        attended = self._attend(self._norm(x), paged, *paged.rotation(*others["position_embeddings"]))
        x = self._o(attended).add_(x)
        inside = self._mlp_norm(x)
        y: torch.Tensor = self._down(self._activation(self._gate(inside)).mul_(self._up(inside)))
        return y.add_(x).unsqueeze(0)

    def _attend(self, x: torch.Tensor, paged: PagedStep, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        num_tokens = len(x)
        query, key, value = (each(x).view(num_tokens, -1, self._head_size) for each in (self._q, self._k, self._v))
        if self._q_norm is not None and self._k_norm is not None:
            query, key = self._q_norm(query), self._k_norm(key)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        grouped = query.view(num_tokens, -1, self._group, self._head_size)
        return paged.attend(self._number, grouped, key, value, self._scale, self._window).view(num_tokens, -1)


def replace_layers(model: Any) -> Callable[[], None] | None:
    """Replace a model's layers; return a function that puts them back, or None where they aren't of a known class."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or {type(each).__name__ for each in layers} - KNOWN_LAYERS:
        return None
    originals = list(layers)
    for number, layer in enumerate(originals):
        layers[number] = PagedDecoderLayer(layer)

    def restore() -> None:
        for number, layer in enumerate(originals):
            layers[number] = layer

    return restore


def rms_norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that computes an RMS norm module (Zhang and Sennrich 2019, arXiv:1910.07467).

    With the root of the size's number of values in the weight, x / sqrt(mean(x^2) + eps) is x over its length, which is
    one call on a CPU and exact enough in float32. On a GPU PyTorch has a kernel for it, where the model's own are six.
    """
    weight = module.weight.detach()
    if weight.device.type == "cuda":
        return lambda x: torch.nn.functional.rms_norm(x, weight.shape, weight, module.variance_epsilon)
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        own: Callable[[torch.Tensor], torch.Tensor] = module.forward
        return own
    size = weight.shape[0]
    scaled = weight * size**0.5
    floor = weight.new_tensor([(size * module.variance_epsilon) ** 0.5])

    def normed(x: torch.Tensor) -> torch.Tensor:
        length = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)
        y: torch.Tensor = x * scaled
        return y.div_(length)

    return normed


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate (tokens, heads, size) by `PagedStep.rotation`: RoPE (Su et al. 2021, arXiv:2104.09864)."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin)
