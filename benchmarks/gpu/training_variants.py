"""Ways to train beside each other in one run: what each option of the product, or each of its parts, gives."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from checks import Check, Figure, NotThere, Place
from parts import Part, without


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Args:
        name: Of the way.
        fields: Hyperparameters that it differs by.
        without: Parts of the product that it goes without.
        is_compiled: Whether it has to be compiled, which takes minutes on a CPU.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[Part, ...] = ()
    is_compiled: bool = False


_LOSS = "sienn_ray.training.loss"
_VARIANTS = (
    Variant("as it comes"),
    Variant("attention row by row", without=(Part(f"{_LOSS}.varlen_attention", "kernel_for", lambda *_, **__: None),)),
    Variant(
        "Liger's kernels left out", without=(Part("sienn_ray.training.preparation", "apply_for", lambda *_: None),)
    ),
    Variant(
        "adapter cast in each layer",
        without=(Part("sienn_ray.training.adapter.adapters", "copy_each_step", lambda *_, **__: None),),
    ),
    Variant("compiled", {"torch_compile": True}, is_compiled=True),
)


def variants(shape: str, load: str, place: Place) -> Iterator[Figure | Exception]:
    """Train in each way; one that the product has no option for isn't there."""
    from training_runs import load_of, measured

    from sienn_ray.training.config import TrainingConfig

    for variant in _VARIANTS:
        missing = [*(variant.fields.keys() - TrainingConfig.model_fields.keys()), *_missing(variant)]
        if missing:
            yield NotThere(f"{variant.name}: the product has no {', '.join(missing)}")
            continue
        if place.is_rehearsal and variant.is_compiled:
            yield NotThere(f"{variant.name}: no GPU: compiling for a CPU takes minutes")
            continue
        try:
            with without(variant.without):
                run = measured(shape, load_of(load, place), place, gradient_checkpointing=False, **variant.fields)
        except Exception as error:
            yield error
            continue
        place.facts[f"training variant: {variant.name}"] = run.facts
        yield Figure(f"{variant.name}: speed", run.tokens_per_s, "tokens/s")
        yield Figure(f"{variant.name}: peak memory", run.peak_bytes / 2**30, "GiB")


def _missing(variant: Variant) -> Iterator[str]:
    """Names of parts that the product doesn't have."""
    for part in variant.without:
        try:
            is_there = hasattr(importlib.import_module(part.module), part.name)
        except ImportError:
            is_there = False
        if not is_there:
            yield f"{part.module}.{part.name}"


CHECKS = (Check("training variants/8B 4k tokens", lambda place: variants("8B", "4k", place), 120.0),)
