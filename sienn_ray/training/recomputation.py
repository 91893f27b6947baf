"""Activations computed again in the backward pass instead of kept (gradient checkpointing), whole or in part.

A layer that is computed again as a whole keeps its input only (Chen et al. 2016, arXiv:1604.06174), and costs its
products once more. Where the results of products and of attention are kept, only what lies between is computed again,
norms, rotations and activation functions, which takes most of the memory and hardly any time (Korthikanti et al. 2022,
arXiv:2205.05198, section 5).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial, wraps
from typing import Any, assert_never

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from sienn_ray.training.hardware import free_memory_bytes


class Recomputation(StrEnum):
    """Parts of a layer that are computed again in the backward pass."""

    NONE = "none"
    SELECTIVE = "selective"
    FULL = "full"


# Operators whose results selective recomputation keeps. `addmm_` adds an adapter's part to a kept product in place.
# Products of batches aren't among them: those are scores of attention where there is no kernel for it.
_KEPT = frozenset(
    {
        "aten::mm",
        "aten::addmm",
        "aten::addmm_",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "torch_attn::_varlen_attn",
    }
)

_ATTENTION_DROPOUTS = (
    "attention_dropout",
    "attention_dropout_prob",
    "attention_probs_dropout_prob",
    "attn_dropout",
    "attn_pdrop",
)


def recompute(model: PreTrainedModel, level: Recomputation) -> None:
    """Have a model's layers compute activations again; gradients stay what they are."""
    match level:
        case Recomputation.NONE:
            return
        case Recomputation.SELECTIVE:
            _rotate_copies(model)
            # Kept products may be added to in place, by operators that are kept themselves.
            contexts = partial(create_selective_checkpoint_contexts, _policy, allow_cache_entry_mutation=True)
            _checkpoint_layers(model, {"use_reentrant": False, "context_fn": contexts})
        case Recomputation.FULL:
            _checkpoint_layers(model, {"use_reentrant": False})
        case _:
            assert_never(level)
    require_input_gradients(model)


@contextmanager
def trial(model: PreTrainedModel, level: Recomputation) -> Iterator[None]:
    """Have a model's layers compute activations again meanwhile, without the randomness of training."""
    source = vars(sys.modules[type(model).__module__])
    names, modes = dict(source), {module: module.training for module in model.modules()}
    recompute(model, level)
    for module in modes:  # layers compute again while they train
        module.training = hasattr(module, "gradient_checkpointing")
    try:
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training
        if hasattr(model, "activation_checkpointing_disable"):
            model.activation_checkpointing_disable()
        else:
            model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
        model._require_grads_hook = None  # not every version forgets it
        source.update(names)


def require_input_gradients(model: PreTrainedModel) -> None:
    """Have the input of the first layer need a gradient as those of the others do."""
    if getattr(model, "_require_grads_hook", None) is None:
        model.enable_input_require_grads()


def drops_attention(config: object) -> bool:
    """Return whether attention drops some of its weights, by what configurations call the probability.

    Kept attention draws no random numbers when a layer is computed again, so that on a GPU all dropout behind it would
    draw others than in the forward pass.
    """
    return any(getattr(config, name, None) for name in _ATTENTION_DROPOUTS)


def _policy(_context: object, operator: Any, *_: object, **__: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator.name() in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def _rotate_copies(model: PreTrainedModel) -> None:
    """Have foreign kernels rotate copies of queries and keys.

    Liger's writes into those that it is given, which are the kept products, and PyTorch doesn't see it: computed again,
    they would be rotated twice. Transformers' own rotation makes new tensors.
    """
    source = sys.modules[type(model).__module__]
    for name, rotate in list(vars(source).items()):
        if name.startswith("apply_") and "rotary" in name and getattr(rotate, "__module__", None) != source.__name__:
            setattr(source, name, _with_copies(rotate))


def _with_copies(rotate: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(rotate)
    def rotate_copies(queries: torch.Tensor, keys: torch.Tensor, *angles: Any, **options: Any) -> Any:
        return rotate(queries.clone(), keys.clone(), *angles, **options)

    return rotate_copies


def _checkpoint_layers(model: PreTrainedModel, options: dict[str, Any]) -> None:
    """Switch gradient checkpointing on, under its name of the day: transformers renames it in version 6."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def choose_recomputation(
    wanted: bool | None, config: object, num_tokens: int, dtype: torch.dtype, device: torch.device
) -> Recomputation:
    """Return the least recomputation that leaves half of a device's free memory to others, if none is asked for.

    Args:
        wanted: `gradient_checkpointing` of the configuration; what is asked for is the whole or nothing.
        config: The base model's transformers configuration.
        num_tokens: Tokens in one forward pass.
        dtype: Data type of the activations.
        device: Where they are.
    """
    if wanted is not None:
        return Recomputation.FULL if wanted else Recomputation.NONE
    room = free_memory_bytes(device) // 2
    for level in Recomputation:
        if activation_bytes(config, num_tokens, dtype, level) <= room:
            return level
    return Recomputation.FULL


def activation_bytes(
    config: object, num_tokens: int, dtype: torch.dtype, level: Recomputation = Recomputation.NONE
) -> int:
    """Roughly what a forward pass keeps for its backward pass, and what the layer that is at it computes again.

    Counted for a gated decoder layer with fused LoRA on every linear module and as many key heads as query heads; for
    Llama 3 8B in bfloat16 that is 6% more than there is, since its key heads are fewer. In a mixture of experts a token
    is as wide as all those that it goes to.

    Args:
        config: The base model's transformers configuration.
        num_tokens: Tokens in one forward pass.
        dtype: Data type of the activations.
        level: What is computed again.
    """
    hidden = _size(config, "hidden_size")
    inner = _size(config, "intermediate_size") or _size(config, "n_inner") or 4 * hidden
    if experts := _size(config, "num_experts_per_tok"):
        inner = experts * (_size(config, "moe_intermediate_size") or inner)
    layers = _size(config, "num_hidden_layers")
    heads = _size(config, "num_attention_heads") * _size(config, "head_dim") or hidden
    # Two norms with their inputs in float32; their results, queries, keys, values, attention; gate, up, activation,
    # product.
    whole = 2 * hidden * 4 + (2 * hidden + 4 * heads + 4 * inner) * dtype.itemsize
    match level:
        case Recomputation.NONE:
            return num_tokens * layers * whole
        case Recomputation.SELECTIVE:
            # The layer's input, its six products and down projection, and attention.
            kept = (3 * hidden + 4 * heads + 2 * inner) * dtype.itemsize
        case Recomputation.FULL:
            kept = hidden * dtype.itemsize
        case _:
            assert_never(level)
    return num_tokens * (layers * kept + whole) if layers else 0


def _size(config: object, name: str) -> int:
    return int(getattr(config, name, None) or 0)
