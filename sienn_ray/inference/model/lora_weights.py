"""LoRA weights in PEFT's format, read for batches; adapters that can't be applied as they were trained are refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sienn_ray.errors import EngineError
from sienn_ray.inference.requests.adapter_files import PREFIX, read_config, read_tensors

_KINDS = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_magnitude_vector": "magnitude"}
# Fields of PEFT's LoraConfig that add weights or change the products, with the values that don't.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "modules_to_save": (None, []), "bias": ("none",), "layer_replication": (None, []), "lora_bias": (None, False),
    "trainable_token_indices": (None,), "target_parameters": (None, []), "alora_invocation_tokens": (None,),
    "use_bdlora": (None, False), "megatron_config": (None,),
}  # fmt: skip
#: Bytes of a GPU that DoRA's gains are computed in.
GAIN_BYTES = 64 * 1024**2
# The base weight, the product and their sum are there at the same time.
_GAIN_TENSORS = 3
# Adapters are read two at a time, and a GPU has `GAIN_BYTES` for one.
_one_at_a_time = threading.Lock()


class BaseLayer(Protocol):
    """A linear layer of the base model."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        ...

    def matrix(self) -> torch.Tensor:
        """The weight, (out, in)."""
        ...


@dataclass(frozen=True)
class LayerLora:
    """An adapter's part in one linear layer: y + x A' B', and for DoRA the whole times a gain for each output.

    Args:
        a: (r, in).
        b: (out, r), times the scaling.
        gain: (out,) of DoRA (Liu et al. 2024, arXiv:2402.09353, equation 5), or None.
    """

    a: torch.Tensor
    b: torch.Tensor
    gain: torch.Tensor | None = None


@dataclass(frozen=True)
class FlatLora:
    """An adapter's weights as a GPU gets them; see `flat_lora`.

    Args:
        weights: (r, columns).
        gains: (outputs,), or None where no layer has any.
    """

    weights: torch.Tensor
    gains: torch.Tensor | None

    @property
    def size_bytes(self) -> int:
        """Bytes of one copy."""
        return self.weights.nbytes + (0 if self.gains is None else self.gains.nbytes)


@dataclass(frozen=True)
class LoraWeights:
    """An adapter's weights by the name of the layer.

    Args:
        layers: The layers' parts.
        max_r: The largest r.
        flat: The same weights in one tensor, where they go to a GPU.
    """

    layers: Mapping[str, LayerLora]
    max_r: int
    flat: FlatLora | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes in memory; for a GPU those on the host, and those of its place in the GPU's memory."""
        if self.flat is not None:
            return 2 * self.flat.size_bytes
        return sum(
            layer.a.nbytes + layer.b.nbytes + (0 if layer.gain is None else layer.gain.nbytes)
            for layer in self.layers.values()
        )


@torch.no_grad()  # else DoRA's gains would keep copies of the base weights for a backward pass
def read_lora(folder: Path, base_model: str, layers: Mapping[str, BaseLayer], dtype: torch.dtype) -> LoraWeights:
    """Read an adapter.

    Args:
        folder: The adapter's files.
        base_model: Hub id of the base model that the adapter has to be for.
        layers: The base model's linear layers by name.
        dtype: Type of the weights in memory.

    Raises:
        ArtifactError: A file is missing or can't be read.
        EngineError: The adapter is for another base model, or has what can't be applied here.
    """
    config = read_config(folder, base_model)
    _check_config(config)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in read_tensors(folder).items():
        name, kind = _parsed(key)
        if name not in layers:
            raise EngineError(f"the adapter has weights for '{name}', which {base_model} doesn't have")
        found.setdefault(name, {})[kind] = tensor
    result = {name: _layer(name, parts, layers[name], config, dtype) for name, parts in found.items()}
    return LoraWeights(result, max(layer.a.shape[0] for layer in result.values()))


def _check_config(config: Mapping[str, Any]) -> None:
    for field, plain in _UNSUPPORTED.items():
        if config.get(field) not in (None, *plain):
            raise EngineError(
                f"the adapter has {field}={config[field]}, which can't be applied beside other adapters; merge it into "
                "its base model instead"
            )


def _parsed(key: str) -> tuple[str, str]:
    """Parse a name: `base_model.model.layers.0.q_proj.lora_A.weight` is the A of `layers.0.q_proj`."""
    for ending, kind in _KINDS.items():
        if key.startswith(PREFIX) and key.endswith(f".{ending}"):
            return key[len(PREFIX) : -len(ending) - 1], kind
    raise EngineError(f"the adapter has a tensor '{key}', which can't be applied beside other adapters")


def _layer(
    name: str, parts: Mapping[str, torch.Tensor], base: BaseLayer, config: Mapping[str, Any], dtype: torch.dtype
) -> LayerLora:
    if not {"a", "b"} <= parts.keys():
        raise EngineError(f"the adapter has only half of the weights for '{name}'")
    a, b = parts["a"].float(), parts["b"].float()
    out_size, in_size = base.shape
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != in_size or b.shape[0] != out_size or a.shape[0] != b.shape[1]:
        raise EngineError(
            f"the adapter's weights for '{name}' are {list(a.shape)} and {list(b.shape)}; the layer takes "
            f"[r, {in_size}] and [{out_size}, r]"
        )
    b = b * _scaling(name, a.shape[0], config)
    gain = None
    if config.get("use_dora"):
        if "magnitude" not in parts:
            raise EngineError(f"the adapter uses DoRA and has no magnitudes for '{name}'")
        gain = _gain(parts["magnitude"].float().flatten(), base.matrix(), a, b)
        if not gain.isfinite().all():
            raise EngineError(f"the adapter's magnitudes for '{name}' aren't all finite numbers; train it again")
        b = b * gain.unsqueeze(1)
    return LayerLora(a.to(dtype).contiguous(), b.to(dtype).contiguous(), None if gain is None else gain.to(dtype))


def _gain(magnitude: torch.Tensor, base: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return magnitudes over the norms of the rows of the changed weights, as PEFT takes them.

    The product is computed where the base weight is; the rest of an adapter stays on the host.
    """
    if base.device.type == "cpu":
        return magnitude / _norms(base, a, b, len(base))
    with _one_at_a_time:
        num_rows = max(1, GAIN_BYTES // (_GAIN_TENSORS * 4 * base.shape[1]))  # float32
        norms = _norms(base, a.to(base.device), b.to(base.device), num_rows)
        return magnitude / norms.to(magnitude.device)


def _norms(base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return the norms of the rows of base + b a, so many rows at a time."""
    pieces = zip(torch.split(base, num_rows), torch.split(b, num_rows), strict=True)
    norms: list[torch.Tensor] = [(rows.float() + of_rows @ a).norm(dim=1) for rows, of_rows in pieces]
    return norms[0] if len(norms) == 1 else torch.cat(norms)


def _scaling(name: str, r: int, config: Mapping[str, Any]) -> float:
    """Return alpha / r (Hu et al. 2021), or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)."""
    alpha = float(_by_pattern(name, config.get("alpha_pattern") or {}, config["lora_alpha"]))
    return float(alpha / (r**0.5 if config.get("use_rslora") else r))


def _by_pattern(name: str, patterns: Mapping[str, float], default: float) -> float:
    """Return a layer's value of PEFT's patterns, regular expressions for ends of names; only plain names work here."""
    for pattern, value in patterns.items():
        if not re.fullmatch(r"[\w.^]+", pattern):
            raise EngineError(f"alpha_pattern {pattern!r} isn't a layer's name; such adapters can't be served")
        plain = pattern.lstrip("^")
        if name == plain or (not pattern.startswith("^") and name.endswith(f".{plain}")):
            return value
    return default
