"""Share a base model out among workers when it doesn't fit one of them (FSDP2).

Every worker reads its own parts of the decoder layers from its node's copy of the files, tensor by tensor, so that none
ever holds the whole model. Embeddings and output head, which often are one tensor, are whole on each, and so is the
adapter, whose gradients are added up once a step as they are without sharding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, assert_never

import torch
import transformers.core_model_loading
from peft import PeftModel
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.experimental import implicit_replication
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from sienn_ray.base_model import load_causal_lm
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.training.adapter.adapters import add_adapter
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.loss.scoring import body
from sienn_ray.training.worker import Worker, global_max

# Of a GPU's memory; the rest is for activations.
_MAX_WEIGHT_SHARE = 0.6


def load_base_model(folder: Path, config: TrainingConfig, worker: Worker, dtype: torch.dtype) -> PreTrainedModel:
    """Load the base model of a run, whole on this worker, or this worker's parts of it; all workers call this together.

    Args:
        folder: Its files.
        config: Of the run.
        worker: This worker.
        dtype: Data type of its weights.

    Raises:
        TrainingError: It is to be shared out, and transformers is of a version that can't read parts of it.
        InvalidBaseModelError: It can't be quantized here.
    """
    if worker.world_size > 1 and config.sharding != "never" and config.quantization is None:
        outline = _outline(folder, dtype)
        if _is_to_be_sharded(config, worker, outline):
            return _load_parts(folder, worker, dtype, set(outline._no_split_modules or ()))
    return load_causal_lm(folder, worker.device, dtype, config.quantization)


def is_sharded(model: PreTrainedModel) -> bool:
    """Return whether a base model is shared out among workers."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def add_adapter_to(base: PreTrainedModel, config: TrainingConfig) -> PeftModel:
    """Wrap a base model, shared out or not, with a new adapter that is whole.

    Raises:
        TrainingError: The base model has no such target modules.
    """
    if not is_sharded(base):
        return add_adapter(base, config)
    with implicit_replication():  # DoRA's magnitudes come from base weights and the adapter's together
        adapter = add_adapter(base, config)
    for module in adapter.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value: Any = parameter.detach()
            if parameter.requires_grad and isinstance(value, DTensor):
                setattr(module, name, torch.nn.Parameter(value.full_tensor()))
    return adapter


def _outline(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Build a base model without its weights: it says how large they are, and which modules are layers."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)  # nosec B615 # a local folder
    with torch.device("meta"):
        outline: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return outline


def _is_to_be_sharded(config: TrainingConfig, worker: Worker, outline: PreTrainedModel) -> bool:
    match config.sharding:
        case "never":
            return False
        case "always":
            return True
        case "auto":
            # On all workers or on none, though their GPUs may differ.
            return bool(global_max(int(_fills(worker.device, outline)), worker.device))
        case _:
            assert_never(config.sharding)


def _fills(device: torch.device, outline: PreTrainedModel) -> bool:
    """Return whether a model's weights leave too little of a GPU's memory."""
    if device.type != "cuda":
        return False
    size_bytes: int = outline.get_memory_footprint()
    return size_bytes > _MAX_WEIGHT_SHARE * torch.cuda.get_device_properties(device).total_memory


def _load_parts(folder: Path, worker: Worker, dtype: torch.dtype, layer_classes: set[str]) -> PreTrainedModel:
    if not hasattr(transformers.core_model_loading, "DtensorShardOperation"):
        raise TrainingError(
            f"transformers {transformers.__version__} can't read a base model in parts; install 5.17 or newer, or set "
            "sharding=never",
            FailureReason.NO_RESOURCES,
        )
    if worker.device.type == "cuda":
        torch.cuda.set_device(worker.device)  # or the mesh would choose one, by its own counting
    mesh = init_device_mesh(worker.device.type, (worker.world_size,))
    with _sharding_layers(layer_classes, mesh):
        base = load_causal_lm(folder, worker.device, dtype)
    base.requires_grad_(False)
    decoder = body(base)
    outside = [base.get_input_embeddings(), base.get_output_embeddings()]
    whole = {parameter for module in outside if module is not None for parameter in module.parameters()}
    fully_shard(decoder, mesh=mesh, ignored_params=whole & set(decoder.parameters()))
    return base


@contextmanager
def _sharding_layers(layer_classes: set[str], mesh: DeviceMesh) -> Iterator[None]:
    """Divide layers among workers as soon as they are built, while they have no weights yet.

    Transformers builds a model without weights and then reads what each parameter holds; of one that is divided it
    reads this worker's part.
    """

    def divide(_: torch.nn.Module, __: str, child: torch.nn.Module | None) -> None:
        if child is not None and type(child).__name__ in layer_classes:
            fully_shard(child, mesh=mesh)

    hook = register_module_module_registration_hook(divide)
    try:
        yield
    finally:
        hook.remove()
