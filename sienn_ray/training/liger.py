"""Liger's kernels for norms, rotations and gated MLPs of a base model, where they give what the base model gives.

A norm of transformers is six kernels on a GPU and the rotation of queries and keys ten, where Liger's are one each, and
keep less for the backward pass (Hsu et al. 2024, arXiv:2410.10989). Its loss isn't used: per token it computes logits
twice, which `token_log_probs` doesn't.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from sienn_ray.training.loss.scoring import body
from sienn_ray.training.recomputation import Recomputation, trial

logger = logging.getLogger(__name__)

# Puts kernels into a model that has been made.
Apply = Callable[..., None]

_PROBE_TOKENS = 16
# Differences over the largest value, of hidden states and of the gradient of what goes in.
_TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


def apply_for(model: PreTrainedModel) -> Apply | None:
    """Return what puts Liger's kernels into a model; None where they aren't installed, or for a CPU."""
    if model.device.type != "cuda" or find_spec("triton") is None or find_spec("liger_kernel") is None:
        return None
    return installed_for(model.config.model_type)


def installed_for(model_type: str) -> Apply | None:
    """Return what puts Liger's kernels into models of a type; None if the installed version doesn't know the type."""
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError as error:  # it also refuses versions of transformers
        logger.info("Liger's kernels can't be used: %s", error)
        return None
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(model_type)
    if apply is None:
        return None
    losses = {"cross_entropy", "fused_linear_cross_entropy"} & inspect.signature(apply).parameters.keys()
    return partial(apply, **dict.fromkeys(losses, False))


def use_kernels(model: PreTrainedModel, apply: Apply | None) -> bool:
    """Put kernels into a model, and leave them there if its hidden states and gradients stay what they are.

    Also where products are kept and the rest is computed again.

    Args:
        model: The base model on its device, with plain attention and without an adapter.
        apply: See `apply_for`; None does nothing.

    Returns:
        Whether the model has them now.
    """
    if apply is None:
        return False
    source = sys.modules[type(model).__module__]
    names_before = dict(vars(source))
    modules_before = {module: dict(vars(module)) for module in model.modules()}
    try:
        expected = _states_and_gradient(model)
        apply(model=model)
        is_same = all(map(_agree, _states_and_gradient(model), expected))
        if is_same and model.supports_gradient_checkpointing:
            # What is kept mustn't be written into.
            with trial(model, Recomputation.SELECTIVE):
                is_same = all(map(_agree, _states_and_gradient(model), expected))
    except Exception as error:  # whatever a compiler, a GPU or a foreign architecture makes of it
        logger.info("Liger's kernels can't be used: %s: %s", type(error).__name__, error)
        is_same = False
    else:
        logger.info("Liger's kernels %s", "are used" if is_same else "don't give what the base model gives")
    # Classes of models to come stay transformers' own; a rotation is a function, which the model's layers look up.
    vars(source).update({name: value for name, value in names_before.items() if not is_same or isinstance(value, type)})
    if not is_same:
        for module, before in modules_before.items():
            vars(module).clear()
            vars(module).update(before)
    return is_same


def _states_and_gradient(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of a short row, and the gradient of a sum of them by what goes into the first layer."""
    embeddings = model.get_input_embeddings()
    ids = torch.arange(3, 3 + _PROBE_TOKENS, device=model.device)[None] % embeddings.num_embeddings
    with torch.enable_grad():
        embedded = embeddings(ids).detach().requires_grad_()
        states: torch.Tensor = body(model)(inputs_embeds=embedded, use_cache=False).last_hidden_state
        weights = torch.linspace(-1, 1, states.shape[-1], device=states.device)
        (gradient,) = torch.autograd.grad((states.float() * weights).sum(), embedded)
    return states.detach(), gradient


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    difference = float((found.float() - expected.float()).abs().max())
    return difference <= _TOLERANCES.get(expected.dtype, 0.1) * float(expected.float().abs().max())
