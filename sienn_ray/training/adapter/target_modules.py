"""Modules of a base model that a LoRA adapter may sit on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sienn_ray.errors import FailureReason, TrainingError

_MAX_NAMES_SHOWN = 5


def check_target_modules(model: PreTrainedModel, names: Sequence[str], base_model: str) -> None:
    """Refuse names that PEFT would skip without a word, or that an adapter can't be exported from.

    A name stands for all modules that it is the end of: `q_proj`, `self_attn.q_proj`, `layers.3.self_attn.q_proj`.

    Args:
        model: The base model without an adapter.
        names: What the user asked for.
        base_model: Its id, for the message.

    Raises:
        TrainingError: A name is the end of no linear module, or of others too.
    """
    usable = linear_modules(model)
    others = [path for path, _ in model.named_modules() if path and path not in usable]
    bad = [name for name in names if not _ends_of(name, usable) or _ends_of(name, others)]
    if bad:
        more = f" and {len(bad) - _MAX_NAMES_SHOWN} more" if len(bad) > _MAX_NAMES_SHOWN else ""
        ends = sorted({path.rsplit(".", 1)[-1] for path in usable})
        raise TrainingError(
            f"target_modules has {', '.join(bad[:_MAX_NAMES_SHOWN])}{more}, which {base_model} has no linear modules "
            f"of; it has {', '.join(ends)}; use some of these, or 'all-linear'",
            FailureReason.INVALID_HYPERPARAMETERS,
        )


def linear_modules(model: PreTrainedModel) -> list[str]:
    """Paths of the linear modules, but for an output head that shares its weights with the input embeddings.

    An adapter on such a head couldn't be merged without changing the embeddings too.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = head is not None and embeddings is not None and head.weight is embeddings.weight
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not (is_tied and module is head)
    ]


def _ends_of(name: str, paths: Sequence[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for path in paths)
