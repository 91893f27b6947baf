"""An adapter's matrices, and what its configuration says of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sienn_ray.errors import ArtifactError, ExportError
from sienn_ray.export.weights.checkpoint_reader import read_json

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."
_KINDS = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_magnitude_vector": "magnitude"}
# Fields of PEFT's LoraConfig that add weights which belong to no matrix of the base model, or change its layers.
_ADD_MORE = ("modules_to_save", "layer_replication", "lora_bias", "trainable_token_indices", "target_parameters",
             "alora_invocation_tokens", "use_bdlora", "megatron_config")  # fmt: skip


class Adapter:
    """A LoRA adapter in PEFT's format.

    Args:
        folder: Where its files are.

    Raises:
        ArtifactError: A file is missing or can't be read.
        ExportError: It is more than matrices of low rank beside those of the base model.
    """

    def __init__(self, folder: Path) -> None:
        from peft import LoraConfig
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        _check(read_json(folder / CONFIG_FILE))
        self.config: LoraConfig = LoraConfig.from_pretrained(folder)
        self.config.inference_mode = True
        # What PEFT fills new matrices with would be overwritten.
        self.config.init_lora_weights = False
        try:
            tensors = load_file(folder / WEIGHTS_FILE)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{WEIGHTS_FILE} can't be read: {error}") from error
        self.layers: Mapping[str, Mapping[str, torch.Tensor]] = _by_layer(tensors)

    @property
    def size_bytes(self) -> int:
        """Bytes of all matrices."""
        return sum(part.nbytes for parts in self.layers.values() for part in parts.values())

    def alpha(self, layer: str) -> float:
        """`lora_alpha` of a layer."""
        from peft.utils.other import get_pattern_key

        patterns: dict[str, float] = self.config.alpha_pattern or {}
        return float(patterns.get(get_pattern_key(list(patterns), layer), self.config.lora_alpha))

    def merged(self, layer: str, weight: torch.Tensor) -> torch.Tensor:
        """A layer's weight with the adapter in it, computed by PEFT in float32 and rounded once.

        Args:
            layer: The layer's name.
            weight: (out, in), or (in, out) where the configuration says `fan_in_fan_out`.

        Returns:
            The same shape and type.

        Raises:
            ExportError: The shapes don't fit, or the result has values that are no numbers.
        """
        import torch
        from peft.tuners.lora import Linear

        parts = self.layers[layer]
        rank = parts["a"].shape[0]
        is_transposed = bool(self.config.fan_in_fan_out)
        num_in, num_out = weight.shape if is_transposed else reversed(weight.shape)
        if parts["a"].shape[1] != num_in or parts["b"].shape[0] != num_out:
            raise ExportError(
                f"the adapter's matrices for '{layer}' are for {parts['b'].shape[0]} x {parts['a'].shape[1]}, the base "
                f"model has {num_out} x {num_in}; it was trained on another base model"
            )
        base = torch.nn.Linear(num_in, num_out, bias=False, device="meta")
        # PEFT adds in place.
        base.weight = torch.nn.Parameter(weight.to(torch.float32, copy=True), requires_grad=False)
        layer_lora = Linear(base, "default", self.config, r=rank, lora_alpha=self.alpha(layer))
        with torch.no_grad():
            layer_lora.lora_A["default"].weight.copy_(parts["a"])
            layer_lora.lora_B["default"].weight.copy_(parts["b"])
            if "magnitude" in parts:
                layer_lora.lora_magnitude_vector["default"].weight.copy_(parts["magnitude"])
            layer_lora.merge()
        merged: torch.Tensor = base.weight.detach()
        if not bool(torch.isfinite(merged.sum())):  # one pass over it, where asking each value takes three
            raise ExportError(f"the merged weight of '{layer}' has values that are no numbers; fine-tune again")
        return merged.to(weight.dtype)


def _check(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ExportError(f"the adapter is of type {config.get('peft_type')}; only LORA can be exported")
    more = [f"{field}={config[field]}" for field in _ADD_MORE if config.get(field)]
    if config.get("bias", "none") != "none":
        more.append(f"bias={config['bias']}")
    if more:
        raise ExportError(f"the adapter has {', '.join(more)}, which can't be merged; fine-tune without it")


def _by_layer(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        suffix = next((suffix for suffix in _KINDS if key.endswith(f".{suffix}")), None)
        if suffix is None:
            raise ExportError(f"the adapter has '{key}', which is no matrix of LoRA")
        layer = key.removeprefix(_PREFIX).removesuffix(f".{suffix}")
        layers.setdefault(layer, {})[_KINDS[suffix]] = tensor
    return layers
