"""Layers of a base model, compiled by PyTorch."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from transformers import PreTrainedModel

from sienn_ray.training.loss.scoring import body
from sienn_ray.training.recomputation import require_input_gradients

logger = logging.getLogger(__name__)

# What Triton looks for, and PyTorch for a CPU.
_COMPILERS = ("cc", "gcc", "clang", "g++", "clang++")


def compile_layers(
    model: PreTrainedModel, *, backend: str | Callable[..., Any] = "inductor", compilers: Iterable[str] = _COMPILERS
) -> bool:
    """Compile each decoder layer by itself: they are alike, so that one compilation serves all.

    Where rows are told by cumulative lengths (`varlen_attention`) it serves packs of any number of rows: once for rows
    that share a beginning, and once for those that don't.

    Args:
        model: The base model.
        backend: PyTorch's, by name, or a function.
        compilers: Commands of C compilers, any of which will do.

    Returns:
        Whether layers are compiled. Without a C compiler they are computed as they are, which takes longer.
    """
    if not any(shutil.which(command) for command in (os.environ.get("CC"), *compilers) if command):
        logger.warning(
            "torch_compile needs a C compiler, and this machine has none: layers aren't compiled; install gcc or "
            "clang, or name another in CC"
        )
        return False
    names = set(model._no_split_modules or ())
    # FSDP2 makes a subclass of a layer's class, under another name.
    layers = [module for module in body(model).modules() if names & {each.__name__ for each in type(module).__mro__}]
    if not layers:
        logger.warning("torch_compile does nothing: %s doesn't name its layers", type(model).__name__)
        return False
    # Else the first layer, whose input needs no gradient, is compiled apart from the others.
    require_input_gradients(model)
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)
    return True
