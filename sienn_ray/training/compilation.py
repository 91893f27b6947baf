"""Layers of a base model, compiled by PyTorch."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from transformers import PreTrainedModel

from sienn_ray.training.loss.scoring import body

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
        Whether there is a C compiler. Without one layers are computed as they are, which takes longer.
    """
    if not any(shutil.which(command) for command in (os.environ.get("CC"), *compilers) if command):
        logger.warning(
            "torch_compile needs a C compiler, and this machine has none: layers aren't compiled; install gcc or "
            "clang, or name another in CC"
        )
        return False
    # Else the first layer, whose input needs no gradient, is compiled apart from the others.
    model.enable_input_require_grads()
    for module in body(model).modules():
        if type(module).__name__ in (model._no_split_modules or ()):
            module.compile(backend=backend, dynamic=True)
    return True
