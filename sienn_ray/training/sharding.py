"""Share a base model out among workers when it doesn't fit one of them (FSDP2)."""

from __future__ import annotations

from typing import Any, assert_never

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from sienn_ray.training.checkpoint import Weights
from sienn_ray.training.config import Sharding
from sienn_ray.training.loss.scoring import body

# Of a GPU's memory; the rest is for activations.
_MAX_WEIGHT_SHARE = 0.6


def is_sharded(wanted: Sharding, model: PreTrainedModel, device: torch.device, world_size: int) -> bool:
    """Return whether the base model is to be shared out: as wanted, else where it takes most of a GPU's memory."""
    if world_size == 1:
        return False
    match wanted:
        case "never":
            return False
        case "always":
            return True
        case "auto":
            return device.type == "cuda" and _fills(device, model)
        case _:
            assert_never(wanted)


def _fills(device: torch.device, model: PreTrainedModel) -> bool:
    """Return whether a model's weights leave too little of a GPU's memory."""
    size_bytes: int = model.get_memory_footprint()
    return size_bytes > _MAX_WEIGHT_SHARE * torch.cuda.get_device_properties(device).total_memory


def shard(model: PreTrainedModel) -> None:
    """Divide the decoder layers, each with its part of the adapter, among all workers.

    Embeddings and output head, which often are one tensor, stay whole on each.
    """
    decoder = body(model)
    layers = [module for module in decoder.modules() if type(module).__name__ in (model._no_split_modules or ())]
    whole = set(model.get_input_embeddings().parameters()) | set(model.get_output_embeddings().parameters())
    for layer in layers:
        fully_shard(layer)
    fully_shard(decoder, ignored_params={p for p in whole if p in set(decoder.parameters())})


def whole_weights(adapter: PeftModel) -> Weights:
    """The adapter's weights by PEFT's names, copied to the CPU; every worker has to take part where they are shared."""
    # Without this flag PEFT asks the hub whether the base model's vocabulary has grown.
    weights: dict[str, Any] = get_peft_model_state_dict(adapter, save_embedding_layers=False)
    return {name: _whole(value).detach().to("cpu", copy=True).contiguous() for name, value in weights.items()}


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state with whole tensors, so that any number of workers can go on with it.

    Every worker has to take part where they are shared out.
    """
    state = optimizer.state_dict()
    whole = {
        number: {name: _whole(value) for name, value in values.items()} for number, values in state["state"].items()
    }
    return {**state, "state": whole}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take whole tensors back, each worker its part of those whose parameters are shared out."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        number: {name: _part(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _part(value: Any, parameter: torch.Tensor) -> Any:
    if isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def _whole(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value
